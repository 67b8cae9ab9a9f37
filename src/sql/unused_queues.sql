-- Named queues that nobody holds and no job belongs to.
select q.id
  from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 where q.locked_at is null
   and not exists (select from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.job_queue_id = q.id)
 order by q.id
