-- Returns the named queues by name: which worker holds each, and how many jobs it has.
select q.id, q.queue_name, q.locked_at, q.locked_by,
       pg_catalog.count(j.id) as job_count,
       pg_catalog.count(j.id) filter (where j.is_available and j.run_at <= pg_catalog.now()) as ready_count
  from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
  left join :GRAPHILE_WORKER_SCHEMA._private_jobs j on j.job_queue_id = q.id
 group by q.id
 order by q.queue_name, q.id
