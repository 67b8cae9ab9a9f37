-- Returns which of these jobs were superseded while they ran, where the schema records that.
--   $1 ids
select r.id from :GRAPHILE_WORKER_SCHEMA._private_job_retirements r where r.id = any($1::bigint[])
