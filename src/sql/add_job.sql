-- Adds one job. No row: a worker took the job of the same key between the two halves of the shared
-- function, and nothing was added; the caller tries again.
--   $1 identifier  $2 payload  $3 queue  $4 run_at  $5 max_attempts  $6 key  $7 priority  $8 flags  $9 key mode
select
  j.id, j.job_queue_id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.created_at, j.key,
  j.revision, j.flags::pg_catalog.text as flags
  from :GRAPHILE_WORKER_SCHEMA.add_job(
    identifier => $1,
    payload => $2::pg_catalog.json,
    queue_name => $3,
    run_at => $4,
    max_attempts => $5,
    job_key => $6,
    priority => $7,
    flags => $8,
    job_key_mode => coalesce($9, 'replace')) j
 where j.id is not null
