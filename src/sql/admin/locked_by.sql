-- Counts the jobs and queues that these workers hold, and locks their rows until the transaction ends. A job that stays
-- failed, because this was its last attempt, gets an error text.
--   $1 workers
with jobs as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set last_error = case
           when j.attempts >= j.max_attempts then coalesce(j.last_error, 'unlocked by force during the last attempt')
           else j.last_error
         end
   where j.locked_by = any($1)
  returning 1
),
queues as materialized (
  select 1 from :GRAPHILE_WORKER_SCHEMA._private_job_queues q where q.locked_by = any($1) for update
)
select
  (select pg_catalog.count(*) from jobs) as jobs,
  (select pg_catalog.count(*) from queues) as queues
