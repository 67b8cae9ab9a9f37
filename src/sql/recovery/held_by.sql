-- Returns the jobs that these workers hold, and how often each has been recovered in its current revision. A worker runs
-- the jobs of a named queue one after another: `waits` is true for all but the first.
--   $1 workers
select j.id, j.job_queue_id, t.identifier, j.payload, j.attempts, j.max_attempts, j.priority, j.run_at,
       j.created_at, j.key, j.revision, j.flags::text as flags, j.locked_by,
       coalesce(r.recoveries, 0) as recoveries,
       pg_catalog.count(*) over (partition by j.locked_by) = 1 as alone,
       j.job_queue_id is not null and pg_catalog.row_number() over (
         partition by j.locked_by, j.job_queue_id order by j.priority, j.run_at, j.id) > 1 as waits
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
  join :GRAPHILE_WORKER_SCHEMA._private_tasks t on t.id = j.task_id
  left join :GRAPHILE_WORKER_SCHEMA._native_recoveries r on r.job_id = j.id and r.revision = j.revision
 where j.locked_by = any($1::text[])
 order by j.id
