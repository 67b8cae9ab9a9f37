-- Returns the jobs that cannot be written now, because another transaction has locked the job's row or the row of its
-- queue. Waits for no lock, and holds none when it returns.
--   $1 ids
with queues as materialized (
  select q.id
    from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
   where q.id = any(array(
           select j.job_queue_id
             from :GRAPHILE_WORKER_SCHEMA._private_jobs j
            where j.id = any($1::bigint[]) and j.job_queue_id is not null))
     for no key update skip locked
),
free as materialized (
  select j.id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where j.id = any($1::bigint[])
     and (j.job_queue_id is null or j.job_queue_id = any(array(select q.id from queues q)))
     for update skip locked
)
select j.id
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.id = any($1::bigint[])
   and j.id <> all(array(select f.id from free f))
