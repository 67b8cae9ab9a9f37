-- Drops this worker from the async crate's table of workers with a heartbeat.
--   $1 worker
select :GRAPHILE_WORKER_SCHEMA.worker_deregister($1::text)
