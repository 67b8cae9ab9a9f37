-- Returns which of these jobs have been recovered at least $2 times in their current revision.
--   $1 ids  $2 recoveries
select r.job_id
  from :GRAPHILE_WORKER_SCHEMA._native_recoveries r
  join :GRAPHILE_WORKER_SCHEMA._private_jobs j on j.id = r.job_id and j.revision = r.revision
 where r.job_id = any($1::bigint[])
   and r.recoveries >= $2::int
