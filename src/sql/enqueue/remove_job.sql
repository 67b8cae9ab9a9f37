-- Removes the job with a key. If the job runs, marks it so that it is not tried again.
--   $1 key
select j.id is not null from :GRAPHILE_WORKER_SCHEMA.remove_job($1) j
