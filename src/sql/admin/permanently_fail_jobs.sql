-- Fails jobs permanently, and returns them. Leaves running jobs alone. If the reason is null, the shared function sets
-- a reason of its own.
--   $1 ids  $2 reason
select
  j.id, coalesce(t.identifier, '') as task_identifier, q.queue_name, j.payload::pg_catalog.text as payload,
  j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at, j.updated_at, j.key,
  j.locked_at, j.locked_by, j.revision, j.flags::pg_catalog.text as flags,
  case
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() then 'scheduled'
    else 'ready'
  end as state
  from :GRAPHILE_WORKER_SCHEMA.permanently_fail_jobs($1, $2) j
  left join :GRAPHILE_WORKER_SCHEMA._private_tasks t on t.id = j.task_id
  left join :GRAPHILE_WORKER_SCHEMA._private_job_queues q on q.id = j.job_queue_id
 where j.id is not null
 order by j.id
