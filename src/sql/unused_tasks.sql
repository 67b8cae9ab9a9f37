-- Tasks that no job is of, except those to keep.
--   $1 names to keep
select t.id
  from :GRAPHILE_WORKER_SCHEMA._private_tasks t
 where t.identifier <> all($1)
   and not exists (select from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.task_id = t.id)
 order by t.id
