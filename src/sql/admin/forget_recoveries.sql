-- Clears the recovery counts of jobs that were rescheduled by hand.
--   $1 ids
delete from :GRAPHILE_WORKER_SCHEMA._native_recoveries r where r.job_id = any($1)
