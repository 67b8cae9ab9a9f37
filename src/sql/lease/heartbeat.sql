-- Sends this worker's heartbeat to the async crate's table, for sweeps of other implementations.
--   $1 worker  $2 metadata
select :GRAPHILE_WORKER_SCHEMA.worker_heartbeat($1::text, $2::json)
