-- Says that this worker lives, to sweepers of other processes that go by heartbeats.
--   $1 worker  $2 metadata
select :GRAPHILE_WORKER_SCHEMA.worker_heartbeat($1::text, $2::json)
