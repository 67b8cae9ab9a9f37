-- Takes this worker off our own list of those that beat.
--   $1 worker
delete from :GRAPHILE_WORKER_SCHEMA._native_workers where id = $1::text
