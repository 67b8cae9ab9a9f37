-- Writes failures of jobs that this worker still holds by the given claims, and frees their queues where $5 says so.
-- The next attempt waits e^attempts seconds, e^10 at most, unless a delay is given.
-- Returns the ids that it wrote, and whether each job has failed permanently.
--   $1 worker  $2 ids  $3 attempts at claim  $4 had a key at claim  $5 frees its queue  $6 errors
--   $7 delays in seconds, null for the backoff  $8 true: fails permanently, no attempt is left
--   $9 payloads that are left to do, null for all of it
with claims as materialized (
  select *
    from rows from (
      pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[]), pg_catalog.unnest($4::boolean[]),
      pg_catalog.unnest($5::boolean[]), pg_catalog.unnest($6::text[]), pg_catalog.unnest($7::float8[]),
      pg_catalog.unnest($8::boolean[]), pg_catalog.unnest($9::text[]))
      c(id, attempts, keyed, frees, error, delay, for_good, rest)
),
failed as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set last_error = c.error,
         run_at = case
           -- A sum beyond the range of timestamps would fail. A job with such a run_at waits anyway.
           when c.for_good or j.run_at > pg_catalog.now() + interval '1000 years' then j.run_at
           else greatest(pg_catalog.now(), j.run_at)
             + coalesce(c.delay, pg_catalog.exp(least(j.attempts, 10))) * interval '1 second'
         end,
         attempts = case when c.for_good then greatest(j.attempts, j.max_attempts) else j.attempts end,
         payload = coalesce(c.rest::json, j.payload),
         locked_by = null,
         locked_at = null
    from claims c
   where j.id = c.id
     and j.locked_by = $1::text
     and (j.attempts = c.attempts or (c.keyed and j.key is null))
  returning j.id, case when c.frees then j.job_queue_id end as queue_id, j.attempts >= j.max_attempts as for_good
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.id = any(array(select f.queue_id from failed f where f.queue_id is not null))
     and q.locked_by = $1::text
)
select id, for_good from failed
