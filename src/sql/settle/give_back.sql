-- Gives back jobs that this worker holds by the given claims, and frees their queues where $5 says so. The attempt does
-- not count.
-- A superseded job keeps its spent attempts, because it must not run again. Jobs that are given back without a delay
-- are due at once, so workers are notified. Returns the ids that it wrote.
--   $1 worker  $2 ids  $3 attempts at claim  $4 had a key at claim  $5 frees its queue
--   $6 delays in seconds or null
with claims as materialized (
  select *
    from rows from (
      pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[]), pg_catalog.unnest($4::boolean[]),
      pg_catalog.unnest($5::boolean[]), pg_catalog.unnest($6::float8[])) c(id, attempts, keyed, frees, delay)
),
back as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set attempts = case
           when j.attempts = c.attempts and j.attempts > 0 and not (c.keyed and j.key is null) then j.attempts - 1
           else j.attempts
         end,
         run_at = case
           when c.delay is null then j.run_at
           else greatest(j.run_at, pg_catalog.now() + c.delay * interval '1 second')
         end,
         locked_by = null,
         locked_at = null
    from claims c
   where j.id = c.id
     and j.locked_by = $1::text
     and (j.attempts = c.attempts or (c.keyed and j.key is null))
  returning j.id, case when c.frees then j.job_queue_id end as queue_id, c.delay
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.id = any(array(select b.queue_id from back b where b.queue_id is not null))
     and q.locked_by = $1::text
),
notified as materialized (
  select pg_catalog.pg_notify(
           'jobs:insert',
           pg_catalog.json_build_object('r', pg_catalog.random(), 'count', pg_catalog.count(*))::text)
    from back
   where delay is null
  having pg_catalog.count(*) > 0
)
select b.id from back b left join notified on true
