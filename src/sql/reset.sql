-- Frees what has been locked for four hours, anyone's: Node's rule, which keeps recovery off from
-- meaning never. A job that died on its last attempt says so, instead of failing without a word.
with jobs as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set locked_by = null,
         locked_at = null,
         run_at = greatest(j.run_at, now()),
         last_error = case
           when j.attempts >= j.max_attempts then coalesce(j.last_error, 'the worker died during the last attempt')
           else j.last_error
         end
   where j.locked_at < now() - interval '4 hours'
  returning 1
),
queues as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.locked_at < now() - interval '4 hours'
  returning 1
)
select (select count(*) from jobs) as jobs, (select count(*) from queues) as queues
