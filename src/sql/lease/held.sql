-- Returns the jobs that this worker holds according to the database. Reads the table once: there is no index on
-- locked_by.
--   $1 worker
select j.id, j.attempts, j.key is null as keyless
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.locked_by = $1::text
