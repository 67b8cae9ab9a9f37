-- Adds one job. Returns no row if a worker took the job of the same key during the shared function: then no job was
-- added, and the caller tries again. Bindings send this statement too, on their callers' drivers: each parameter occurs
-- once, in order, and has its type from here.
--   $1 identifier  $2 payload  $3 queue  $4 run_at  $5 max_attempts  $6 key  $7 priority  $8 flags  $9 key mode
select
  j.id, j.job_queue_id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.created_at, j.key,
  j.revision, cast(j.flags as pg_catalog.text) as flags
  from :GRAPHILE_WORKER_SCHEMA.add_job(
    identifier => cast($1 as pg_catalog.text),
    payload => cast(cast($2 as pg_catalog.text) as pg_catalog.json),
    queue_name => cast($3 as pg_catalog.text),
    run_at => cast($4 as pg_catalog.timestamptz),
    max_attempts => cast($5 as pg_catalog.int4),
    job_key => cast($6 as pg_catalog.text),
    priority => cast($7 as pg_catalog.int4),
    flags => cast($8 as pg_catalog.text[]),
    job_key_mode => coalesce(cast($9 as pg_catalog.text), 'replace')) j
 where j.id is not null
