-- Returns jobs in their current state, by id: of one task, of one queue, in one state. A parameter that is null does
-- not filter. Jobs whose task has no row are included, with an empty task name.
--   $1 ids  $2 task  $3 queue  $4 state  $5 limit  $6 offset
select l.*
  from (
    select
      j.id, coalesce(t.identifier, '') as task_identifier, q.queue_name, j.payload::pg_catalog.text as payload,
      j.priority, j.run_at, j.attempts, j.max_attempts, j.last_error, j.created_at, j.updated_at, j.key,
      j.locked_at, j.locked_by, j.revision, j.flags::pg_catalog.text as flags,
      case
        when j.locked_at is not null then 'locked'
        when j.attempts >= j.max_attempts then 'failed'
        when j.run_at > pg_catalog.now() then 'scheduled'
        else 'ready'
      end as state
      from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      left join :GRAPHILE_WORKER_SCHEMA._private_tasks t on t.id = j.task_id
      left join :GRAPHILE_WORKER_SCHEMA._private_job_queues q on q.id = j.job_queue_id) l
 where ($1 is null or l.id = any($1))
   and ($2 is null or l.task_identifier = $2)
   and ($3 is null or l.queue_name = $3)
   and ($4 is null or l.state = $4)
 order by l.id
 limit $5
offset $6
