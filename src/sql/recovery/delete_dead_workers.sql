-- Drops the entries of dead workers that hold no job.
--   $1 dead workers
delete from :GRAPHILE_WORKER_SCHEMA.:WORKERS w
 where w.id = any($1::text[])
   and not exists (select from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.locked_by = w.id)
