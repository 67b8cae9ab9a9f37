-- Renews the locks of jobs held by the given claims, and of their queues, so that no worker takes them over by the age
-- of the lock. Does not write updated_at. Passes over rows that another session has locked. Returns the ids whose rows
-- this worker still holds, renewed or passed over.
--   $1 worker  $2 ids  $3 attempts at claim  $4 had a key at claim
with claims as materialized (
  select *
    from rows from (
      pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[]), pg_catalog.unnest($4::boolean[]))
      c(id, attempts, keyed)
),
ours as materialized (
  select j.id, j.job_queue_id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
    join claims c on c.id = j.id
   where j.locked_by = $1::text
     and (j.attempts = c.attempts or (c.keyed and j.key is null))
),
jobs as materialized (
  select j.id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where j.id = any(array(select o.id from ours o))
     and j.locked_by = $1::text
     for no key update skip locked
),
queues as materialized (
  select q.id
    from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
   where q.id = any(array(select o.job_queue_id from ours o where o.job_queue_id is not null))
     and q.locked_by = $1::text
     for no key update skip locked
),
renewed as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set locked_at = pg_catalog.now()
   where j.id = any(array(select l.id from jobs l))
),
kept as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_at = pg_catalog.now()
   where q.id = any(array(select u.id from queues u))
)
select o.id from ours o
