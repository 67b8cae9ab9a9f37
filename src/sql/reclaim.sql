-- Gives back jobs that are locked for this worker without its knowing, after a lost reply, and frees
-- every queue that it holds without a job. Only while no claim is in flight.
-- Nobody knows what such a claim saw, so a superseded job is told by its marks: no key, no attempts
-- left, and written to since it was added (claims do not write updated_at).
--   $1 worker  $2 ids  $3 attempts as read
with said as materialized (
  select * from unnest($2::bigint[], $3::smallint[]) s(id, attempts)
),
back as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set attempts = case
           when j.key is null and j.attempts >= j.max_attempts and j.updated_at <> j.created_at then j.attempts
           else greatest(j.attempts - 1, 0)
         end,
         locked_by = null,
         locked_at = null
    from said s
   where j.id = s.id
     and j.locked_by = $1::text
     and j.attempts = s.attempts
  returning j.id
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.locked_by = $1::text
     and not exists (
       select
         from :GRAPHILE_WORKER_SCHEMA._private_jobs j
        where j.job_queue_id = q.id
          and j.locked_by = $1::text
          and j.id <> all($2::bigint[]))
),
told as materialized (
  select pg_notify('jobs:insert', json_build_object('r', random(), 'count', count(*))::text)
    from back
  having count(*) > 0
)
select b.id from back b left join told on true
