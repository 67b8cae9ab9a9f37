-- Takes dead workers off the list once they hold nothing, and forgets recoveries of jobs that are gone.
--   $1 dead workers
with forgotten as (
  delete from :GRAPHILE_WORKER_SCHEMA._native_recoveries r
   where not exists (select from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.id = r.job_id)
)
delete from :GRAPHILE_WORKER_SCHEMA.:WORKERS w
 where w.id = any($1::text[])
   and not exists (select from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.locked_by = w.id)
