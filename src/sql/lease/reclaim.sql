-- Gives back jobs that are locked for this worker without its knowledge, after a lost reply. Frees every queue that it
-- holds without a job. Call it only while no claim is in flight. Passes over rows that another session has locked: the
-- next call finds them.
-- What the lost claim read is unknown. So a superseded job is recognized by its marks: no key, no attempts left, and
-- written to since it was added (claims do not write updated_at). Returns a row for each job that it gave back, with its
-- id, and a row for each queue that it freed.
--   $1 worker  $2 ids  $3 attempts as read
with claims as materialized (
  select *
    from rows from (pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[])) c(id, attempts)
),
free as materialized (
  select j.id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
    join claims c on c.id = j.id and c.attempts = j.attempts
   where j.locked_by = $1::text
     for update of j skip locked
),
back as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set attempts = case
           when j.key is null and j.attempts >= j.max_attempts and j.updated_at <> j.created_at then j.attempts
           else greatest(j.attempts - 1, 0)
         end,
         locked_by = null,
         locked_at = null
   where j.id = any(array(select f.id from free f))
  returning j.id
),
queues as materialized (
  select q.id
    from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
   where q.locked_by = $1::text
     and not exists (
       select
         from :GRAPHILE_WORKER_SCHEMA._private_jobs j
        where j.job_queue_id = q.id
          and j.locked_by = $1::text
          and j.id <> all(array(select f.id from free f)))
     for update skip locked
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.id = any(array(select u.id from queues u))
  returning q.id
),
notified as materialized (
  select pg_catalog.pg_notify(
           'jobs:insert',
           pg_catalog.json_build_object('r', pg_catalog.random(), 'count', pg_catalog.count(*))::text)
    from back
  having pg_catalog.count(*) > 0
)
select b.id from back b left join notified on true
union all
select null from freed
