-- Counts the due jobs of tasks that this worker does not have, among the first waiting jobs, by the task's name. A job
-- that no worker takes moves to the front by itself, so a bounded search finds it. A row without a name means that a
-- task of this worker is deleted.
--   $1 ids of this worker's tasks  $2 how many waiting jobs are read
select t.identifier, pg_catalog.count(*) as jobs
  from (
    select j.task_id, j.run_at
      from :GRAPHILE_WORKER_SCHEMA._private_jobs j
     where j.is_available
     order by j.priority, j.run_at
     limit $2::int) j
  join :GRAPHILE_WORKER_SCHEMA._private_tasks t on t.id = j.task_id
 where j.run_at <= pg_catalog.now()
   and j.task_id <> all($1::int[])
 group by t.identifier
union all
select null, pg_catalog.count(*)
  from pg_catalog.unnest($1::int[]) own(id)
 where not exists (select from :GRAPHILE_WORKER_SCHEMA._private_tasks t where t.id = own.id)
having pg_catalog.count(*) > 0
