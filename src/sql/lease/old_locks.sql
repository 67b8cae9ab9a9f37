-- Returns the jobs and queues that any worker has locked for four hours. Reads each table once.
select j.id, true as is_job
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.locked_at < pg_catalog.now() - interval '4 hours'
union all
select q.id::bigint, false
  from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 where q.locked_at < pg_catalog.now() - interval '4 hours'
