-- Deletes those of these tasks that still no job is of. Enqueues must be held.
--   $1 ids
with used as materialized (
  select distinct j.task_id as id from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.task_id = any($1)
)
delete from :GRAPHILE_WORKER_SCHEMA._private_tasks t
 where t.id = any($1)
   and t.id not in (select u.id from used u)
