-- Named queues that nobody holds and no job belongs to.
--   $1 whether jobs that have failed for good count as gone
select q.id
  from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 where q.locked_at is null
   and not exists (
     select
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.job_queue_id = q.id
        and not ($1 and j.locked_at is null and j.attempts >= j.max_attempts))
 order by q.id
