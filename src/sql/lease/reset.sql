-- Frees those of these jobs and queues that any worker has locked for four hours. This is Node's rule, and holds also
-- while recovery is off. A job that died on its last attempt gets an error text, so that it does not fail without a
-- reason. Passes over rows that another session has locked. Returns how many it freed.
--   $1 job ids  $2 queue ids
with old_jobs as materialized (
  select j.id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where j.id = any($1::bigint[])
     and j.locked_at < pg_catalog.now() - interval '4 hours'
     for update skip locked
),
old_queues as materialized (
  select q.id
    from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
   where q.id = any($2::bigint[]::int[])
     and q.locked_at < pg_catalog.now() - interval '4 hours'
     for update skip locked
),
jobs as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set locked_by = null,
         locked_at = null,
         run_at = greatest(j.run_at, pg_catalog.now()),
         last_error = case
           when j.attempts >= j.max_attempts then coalesce(j.last_error, 'the worker died during the last attempt')
           else j.last_error
         end
   where j.id = any(array(select o.id from old_jobs o))
  returning 1
),
queues as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.id = any(array(select o.id from old_queues o))
  returning 1
)
select (select pg_catalog.count(*) from jobs) as jobs, (select pg_catalog.count(*) from queues) as queues
