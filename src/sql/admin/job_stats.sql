-- Counts the jobs in each state.
select
  pg_catalog.count(*) as total,
  pg_catalog.count(*) filter (where j.is_available and j.run_at <= pg_catalog.now()) as ready,
  pg_catalog.count(*) filter (where j.is_available and j.run_at > pg_catalog.now()) as scheduled,
  pg_catalog.count(*) filter (where j.locked_at is not null) as locked,
  pg_catalog.count(*) filter (where j.locked_at is null and j.attempts >= j.max_attempts) as failed
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
