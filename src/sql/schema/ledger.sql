-- How far the shared schema was migrated, and by how much it is ahead of us.
--   $1 the newest id that we know
select
  coalesce(pg_catalog.max(m.id), 0) as max_id,
  pg_catalog.min(m.id) filter (where m.breaking and m.id > $1::pg_catalog.int4) as breaks_us,
  -- Whoever migrates an old schema right now adds rows one by one.
  coalesce(pg_catalog.max(m.ts) > pg_catalog.clock_timestamp() - interval '10 seconds', false) as is_moving
from :GRAPHILE_WORKER_SCHEMA.migrations m
