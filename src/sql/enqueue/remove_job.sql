-- Removes the job with a key; one that runs is marked so that it is not tried again.
--   $1 key
select j.id is not null from :GRAPHILE_WORKER_SCHEMA.remove_job($1) j
