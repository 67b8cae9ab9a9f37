-- Returns the names of tasks and queues by their ids.
--   $1 task ids  $2 queue ids
select true as is_task, t.id, t.identifier as name
  from :GRAPHILE_WORKER_SCHEMA._private_tasks t
 where t.id operator(pg_catalog.=) any($1)
union all
select false, q.id, q.queue_name
  from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
 where q.id operator(pg_catalog.=) any($2)
