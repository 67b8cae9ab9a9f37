-- Jobs that were rescheduled by hand have not been recovered yet.
--   $1 ids
delete from :GRAPHILE_WORKER_SCHEMA._native_recoveries r where r.job_id = any($1)
