-- Returns the ids of the first $2 due jobs without a queue, in the order of (priority, run_at). Locks and claims none, so
-- another worker may claim them meanwhile.
--   $1 task ids  $2 limit  $3 forbidden flags  $4 accepted flags  $5 now
--   $6 $7 priorities in order, and for each the run_at from which it is read
-- NULL in $3, $4, $5 switches that part off.
select array(
  select c.id
    from rows from (pg_catalog.unnest($6::smallint[]), pg_catalog.unnest($7::timestamptz[])) r(priority, since)
   cross join lateral (
     select j.id
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available and j.job_queue_id is null
        and j.priority = r.priority
        and j.run_at >= r.since
        and j.run_at <= coalesce($5::timestamptz, pg_catalog.now())
        and j.task_id = any($1::int[])
        -- Without flags to look at, the index is enough.
        and (coalesce(pg_catalog.cardinality($3::text[]), 0) + coalesce(pg_catalog.cardinality($4::text[]), 0) = 0
             or exists (
               select
                 from :GRAPHILE_WORKER_SCHEMA._private_jobs f
                where f.id = j.id
                  and (pg_catalog.cardinality($3::text[]) > 0 and f.flags ?| $3::text[]) is not true
                  and (pg_catalog.cardinality($4::text[]) > 0 and (f.flags ?| $4::text[]) is not true) is not true))
      order by j.run_at
      limit $2::int) c
   limit $2::int) as ids
