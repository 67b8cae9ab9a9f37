-- Changes when, with which priority and how often jobs are tried, and returns them. Leaves running jobs alone. A
-- parameter that is null leaves its column as it is.
--   $1 ids  $2 run_at  $3 true: run_at is now, by the database's clock  $4 priority  $5 attempts  $6 max_attempts
select
  j.id, coalesce(t.identifier, '') as task_identifier, q.queue_name, j.payload::pg_catalog.text as payload,
  j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at, j.updated_at, j.key,
  j.locked_at, j.locked_by, j.revision, j.flags::pg_catalog.text as flags,
  case
    when j.attempts >= j.max_attempts then 'failed'
    when j.run_at > pg_catalog.now() then 'scheduled'
    else 'ready'
  end as state
  from :GRAPHILE_WORKER_SCHEMA.reschedule_jobs(
    job_ids => $1,
    run_at => case when $3 then pg_catalog.now() else $2 end,
    priority => $4,
    attempts => $5,
    max_attempts => $6) j
  left join :GRAPHILE_WORKER_SCHEMA._private_tasks t on t.id = j.task_id
  left join :GRAPHILE_WORKER_SCHEMA._private_job_queues q on q.id = j.job_queue_id
 where j.id is not null
 order by j.id
