-- The floor: the least work for PostgreSQL to claim jobs, 500 at a time. It has none of a worker's guarantees: no named
-- queues, no retries, no task names, no fences.
with claimed as (
  update graphile_worker._private_jobs j
     set attempts = j.attempts + 1, locked_by = 'floor', locked_at = now()
   where j.id = any(array(
     select id
       from graphile_worker._private_jobs
      where is_available and job_queue_id is null and run_at <= now()
      order by priority, run_at
      limit 500
        for update skip locked))
  returning j.id, j.payload
)
select id, payload from claimed
