-- Returns one of the jobs that were just claimed, in the form of a claim.
--   $1 id
select j.id, j.job_queue_id, j.task_id, j.payload, j.attempts, j.max_attempts, j.priority, j.run_at,
       j.created_at, j.key, j.revision, j.flags::pg_catalog.text as flags,
       null::int as apart,
       pg_catalog.starts_with(j.last_error, 'recovered: ') as was_recovered,
       null::float8 as seconds
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.id = $1::bigint
