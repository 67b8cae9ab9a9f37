-- Deletes those of these tasks that still no job is of. Enqueues must be held: what reads all jobs does so
-- once, and by hashing, however many the tasks are.
--   $1 ids
with unused as materialized (
  select i.id from pg_catalog.unnest($1) i (id)
  except
  select j.task_id from :GRAPHILE_WORKER_SCHEMA._private_jobs j
)
delete from :GRAPHILE_WORKER_SCHEMA._private_tasks t
 using unused u
 where t.id = u.id
