-- Frees those of these jobs that have been locked for more than four hours, and their queues. The shared functions
-- treat such jobs as unlocked, but leave the locks in place. Locks all of the jobs in one order, so that two sessions
-- that change many jobs cannot deadlock.
--   $1 ids
with chosen as materialized (
  select j.id, j.locked_by, coalesce(j.locked_at < pg_catalog.now() - interval '4 hours', false) as is_stale
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where j.id = any($1)
   order by j.id
     for update
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set locked_at = null,
         locked_by = null
    from chosen c
   where j.id = c.id and c.is_stale
  returning j.job_queue_id, c.locked_by
)
update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
   set locked_at = null,
       locked_by = null
  from freed f
 where q.id = f.job_queue_id
   and q.locked_by = f.locked_by
   and q.locked_at < pg_catalog.now() - interval '4 hours'
