-- Takes this worker off the list of those that beat.
--   $1 worker
select :GRAPHILE_WORKER_SCHEMA.worker_deregister($1::text)
