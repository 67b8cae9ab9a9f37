-- Which of these jobs have been recovered so often, in the revision that they have now.
--   $1 ids  $2 how often
select r.job_id
  from :GRAPHILE_WORKER_SCHEMA._native_recoveries r
  join :GRAPHILE_WORKER_SCHEMA._private_jobs j on j.id = r.job_id and j.revision = r.revision
 where r.job_id = any($1::bigint[])
   and r.recoveries >= $2::int
