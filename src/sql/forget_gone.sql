-- Forgets how often jobs were recovered that are gone.
delete from :GRAPHILE_WORKER_SCHEMA._native_recoveries r
 where not exists (select from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.id = r.job_id)
