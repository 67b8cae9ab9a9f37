-- Returns the workers with a heartbeat, the one that has been silent for longest first.
select w.id as worker_id, w.started_at, w.last_heartbeat_at, w.metadata::text as metadata,
       -- An infinite time has an epoch, but before PostgreSQL 17 no difference.
       extract(epoch from pg_catalog.now())::float8 - extract(epoch from w.last_heartbeat_at)::float8 as silent_for
  from :GRAPHILE_WORKER_SCHEMA.:WORKERS w
 order by w.last_heartbeat_at
