-- Renews the locks of jobs held by the claims named, and of their queues, so that nobody who goes by
-- a lock's age takes them over. Does not touch updated_at. Answers the ids that it touched.
--   $1 worker  $2 ids  $3 attempts at claim  $4 had a key at claim
with said as materialized (
  select * from unnest($2::bigint[], $3::smallint[], $4::boolean[]) s(id, attempts, keyed)
),
renewed as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set locked_at = now()
    from said s
   where j.id = s.id
     and j.locked_by = $1::text
     and (j.attempts = s.attempts or (s.keyed and j.key is null))
  returning j.id, j.job_queue_id
),
queues as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_at = now()
   where q.id = any(array(select r.job_queue_id from renewed r where r.job_queue_id is not null))
     and q.locked_by = $1::text
)
select id from renewed
