-- Deletes those of these tasks that still have no jobs. Enqueues must be held. Reads all jobs only once, by hashing,
-- however many tasks there are.
--   $1 ids
with unused as materialized (
  select i.id from pg_catalog.unnest($1) i (id)
  except
  select j.task_id from :GRAPHILE_WORKER_SCHEMA._private_jobs j
)
delete from :GRAPHILE_WORKER_SCHEMA._private_tasks t
 using unused u
 where t.id = u.id
