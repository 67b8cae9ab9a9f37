-- Takes jobs away from dead workers, each as it was decided. Frees the queues that these workers hold, unless a job of
-- the queue stays theirs. A job that was superseded meanwhile must not run again. It is recognized by its marks: no
-- key, no attempts left, written to since it was added. Counts the recoveries of each job where $8 says so. Does not write
-- updated_at.
-- Returns the jobs that it took.
--   $1 dead workers  $2 ids  $3 attempts as read  $4 attempts from now on
--   $5 delays in seconds  $6 times to run at, null for now and the delay  $7 errors  $8 counts as a recovery of the job
with decisions as materialized (
  select *
    from rows from (
      pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[]), pg_catalog.unnest($4::smallint[]),
      pg_catalog.unnest($5::float8[]), pg_catalog.unnest($6::timestamptz[]), pg_catalog.unnest($7::text[]),
      pg_catalog.unnest($8::boolean[])) d(id, attempts, attempts_after, delay, run_at, error, counts)
),
taken as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set attempts = case
           when j.key is null and j.attempts >= j.max_attempts and j.updated_at <> j.created_at then j.attempts
           else d.attempts_after
         end,
         run_at = coalesce(d.run_at, greatest(j.run_at, pg_catalog.now() + d.delay * interval '1 second')),
         last_error = d.error,
         locked_by = null,
         locked_at = null
    from decisions d
   where j.id = d.id
     and j.locked_by = any($1::text[])
     and j.attempts = d.attempts
  returning j.id, j.revision, d.counts
),
counted as (
  insert into :GRAPHILE_WORKER_SCHEMA._native_recoveries as r (job_id, revision, recoveries)
  select t.id, t.revision, 1 from taken t where t.counts
  on conflict (job_id) do update
     set recoveries = case when r.revision = excluded.revision then r.recoveries + 1 else 1 end,
         revision = excluded.revision
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.locked_by = any($1::text[])
     and not exists (
       select
         from :GRAPHILE_WORKER_SCHEMA._private_jobs j
        where j.job_queue_id = q.id
          and j.locked_by = q.locked_by
          and j.id not in (select t.id from taken t))
),
notified as materialized (
  select pg_catalog.pg_notify(
           'jobs:insert',
           pg_catalog.json_build_object('r', pg_catalog.random(), 'count', pg_catalog.count(*))::text)
    from taken
  having pg_catalog.count(*) > 0
)
select t.id from taken t left join notified on true
