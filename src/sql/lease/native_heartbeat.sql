-- Sends this worker's heartbeat to this library's table of workers. Returns whether another worker in the table has
-- been silent for longer than this worker's threshold, so that no statement of its own is needed for that.
--   $1 worker  $2 metadata  $3 threshold in seconds
with beat as (
  insert into :GRAPHILE_WORKER_SCHEMA._native_workers as w (id, last_heartbeat_at, metadata)
  values ($1::text, pg_catalog.now(), $2::json::jsonb)
  on conflict (id) do update set last_heartbeat_at = pg_catalog.now()
)
select exists (
  select
    from :GRAPHILE_WORKER_SCHEMA._native_workers w
   where w.id <> $1::text
     and w.last_heartbeat_at < pg_catalog.now() - $3::float8 * interval '1 second'
) as has_silent
