-- Unlocks the jobs and queues of workers that are known to be dead.
--   $1 workers
select :GRAPHILE_WORKER_SCHEMA.force_unlock_workers($1)
