-- Returns the tasks without jobs, except those to keep.
--   $1 names to keep  $2 whether jobs that have failed permanently count as deleted
select t.id
  from :GRAPHILE_WORKER_SCHEMA._private_tasks t
 where t.identifier <> all($1)
   and not exists (
     select
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.task_id = t.id
        and not ($2 and j.locked_at is null and j.attempts >= j.max_attempts))
 order by t.id
