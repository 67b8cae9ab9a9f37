-- Deletes jobs that this worker still holds by the given claims, and frees their queues where $5 says so.
-- A job that was superseded meanwhile (its key is null) still belongs to that claim. Returns the ids that it deleted.
--   $1 worker  $2 ids  $3 attempts at claim  $4 had a key at claim  $5 frees its queue
with claims as materialized (
  select *
    from rows from (
      pg_catalog.unnest($2::bigint[]), pg_catalog.unnest($3::smallint[]), pg_catalog.unnest($4::boolean[]),
      pg_catalog.unnest($5::boolean[])) c(id, attempts, keyed, frees)
),
done as (
  delete from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   using claims c
   where j.id = c.id
     and j.locked_by = $1::text
     and (j.attempts = c.attempts or (c.keyed and j.key is null))
  returning j.id, case when c.frees then j.job_queue_id end as queue_id
),
freed as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = null,
         locked_at = null
   where q.id = any(array(select d.queue_id from done d where d.queue_id is not null))
     and q.locked_by = $1::text
)
select id from done
