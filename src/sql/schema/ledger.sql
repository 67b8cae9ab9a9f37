-- Returns the newest migration of the shared schema, and the first breaking one that this library does not know.
--   $1 the newest id that this library knows
select
  coalesce(pg_catalog.max(m.id), 0) as max_id,
  pg_catalog.min(m.id) filter (where m.breaking and m.id > $1::pg_catalog.int4) as breaks_us,
  -- A worker that migrates an old schema now adds rows one by one.
  coalesce(pg_catalog.max(m.ts) > pg_catalog.clock_timestamp() - interval '10 seconds', false) as is_moving
from :GRAPHILE_WORKER_SCHEMA.migrations m
