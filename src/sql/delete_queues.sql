-- Deletes those of these queues that still nobody holds and no job belongs to. Enqueues must be held.
--   $1 ids
with used as materialized (
  select distinct j.job_queue_id as id from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.job_queue_id = any($1)
)
delete from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 where q.id = any($1)
   and q.locked_at is null
   and q.id not in (select u.id from used u)
