-- How many jobs and queues these workers hold.
--   $1 workers
select
  (select pg_catalog.count(*) from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.locked_by = any($1)) as jobs,
  (select pg_catalog.count(*) from :GRAPHILE_WORKER_SCHEMA._private_job_queues q where q.locked_by = any($1)) as queues
