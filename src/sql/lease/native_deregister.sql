-- Drops this worker from this library's table of workers with a heartbeat.
--   $1 worker
delete from :GRAPHILE_WORKER_SCHEMA._native_workers where id = $1::text
