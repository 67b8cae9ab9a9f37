-- Deletes those of these queues that are still unlocked and have no jobs. Enqueues must be held. Reads all jobs only
-- once, by hashing, however many queues there are.
--   $1 ids
with unused as materialized (
  select i.id from pg_catalog.unnest($1) i (id)
  except
  select j.job_queue_id from :GRAPHILE_WORKER_SCHEMA._private_jobs j
)
delete from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 using unused u
 where q.id = u.id
   and q.locked_at is null
