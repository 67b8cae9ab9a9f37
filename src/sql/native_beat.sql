-- Says that this worker lives, to sweepers of our own kind.
--   $1 worker  $2 metadata
insert into :GRAPHILE_WORKER_SCHEMA._native_workers as w (id, last_heartbeat_at, metadata)
values ($1::text, pg_catalog.now(), $2::json::jsonb)
on conflict (id) do update set last_heartbeat_at = pg_catalog.now()
