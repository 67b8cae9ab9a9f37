-- Returns the named queues that are unlocked and have no jobs.
--   $1 whether jobs that have failed permanently count as deleted
select q.id
  from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 where q.locked_at is null
   and not exists (
     select
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.job_queue_id = q.id
        and not ($1 and j.locked_at is null and j.attempts >= j.max_attempts))
 order by q.id
