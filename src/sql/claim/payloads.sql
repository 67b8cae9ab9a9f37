-- The payloads of jobs that this worker holds. A job that is missing from the result does not belong to this worker.
--   $1 worker  $2 ids
select j.id, j.payload
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.id = any($2::bigint[])
   and j.locked_by = $1::text
