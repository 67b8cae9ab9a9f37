-- Gives back jobs that this worker holds by the given claims, and frees their queues. The attempt does not count.
-- A superseded job keeps its spent attempts, because it must not run again. Jobs that are given back without a delay
-- are due at once, so workers are notified. Returns the ids that it wrote.
--   $1 worker  $2 ids  $3 attempts at claim  $4 had a key at claim  $5 delays in seconds or null
with said as materialized (
  select *
    from rows from (
      pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[]), pg_catalog.unnest($4::boolean[]),
      pg_catalog.unnest($5::float8[])) s(id, attempts, keyed, delay)
),
back as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set attempts = case
           when j.attempts = s.attempts and j.attempts > 0 and not (s.keyed and j.key is null) then j.attempts - 1
           else j.attempts
         end,
         run_at = case
           when s.delay is null then j.run_at
           else greatest(j.run_at, pg_catalog.now() + s.delay * interval '1 second')
         end,
         locked_by = null,
         locked_at = null
    from said s
   where j.id = s.id
     and j.locked_by = $1::text
     and (j.attempts = s.attempts or (s.keyed and j.key is null))
  returning j.id, j.job_queue_id, s.delay
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.id = any(array(select b.job_queue_id from back b where b.job_queue_id is not null))
     and q.locked_by = $1::text
),
told as materialized (
  select pg_catalog.pg_notify(
           'jobs:insert',
           pg_catalog.json_build_object('r', pg_catalog.random(), 'count', pg_catalog.count(*))::text)
    from back
   where delay is null
  having pg_catalog.count(*) > 0
)
select b.id from back b left join told on true
