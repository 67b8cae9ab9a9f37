-- Returns the workers that hold jobs or queues, and how many each holds, by name.
select held.locked_by as worker_id,
       pg_catalog.count(*) filter (where held.is_job) as locked_jobs,
       pg_catalog.count(*) filter (where not held.is_job) as locked_queues
  from (
    select j.locked_by, true as is_job
      from :GRAPHILE_WORKER_SCHEMA._private_jobs j
     where j.locked_by is not null
    union all
    select q.locked_by, false
      from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     where q.locked_by is not null) held
 group by held.locked_by
 order by held.locked_by
