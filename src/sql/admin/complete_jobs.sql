-- Deletes jobs as if they had succeeded, and returns them as they were. Leaves running jobs alone.
--   $1 ids
select
  j.id, coalesce(t.identifier, '') as task_identifier, q.queue_name, j.payload::pg_catalog.text as payload,
  j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at, j.updated_at, j.key,
  j.locked_at, j.locked_by, j.revision, j.flags::pg_catalog.text as flags,
  case
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() then 'scheduled'
    else 'ready'
  end as state
  from :GRAPHILE_WORKER_SCHEMA.complete_jobs($1) j
  left join :GRAPHILE_WORKER_SCHEMA._private_tasks t on t.id = j.task_id
  left join :GRAPHILE_WORKER_SCHEMA._private_job_queues q on q.id = j.job_queue_id
 where j.id is not null
 order by j.id
