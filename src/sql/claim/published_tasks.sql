-- Returns the tasks that live workers of this library publish.
--   $1 after how many seconds of silence a worker is not live
select distinct pg_catalog.jsonb_array_elements_text(w.metadata -> 'tasks') as identifier
  from :GRAPHILE_WORKER_SCHEMA._native_workers w
 where pg_catalog.jsonb_typeof(w.metadata -> 'tasks') = 'array'
   and w.last_heartbeat_at > pg_catalog.now() - $1::float8 * interval '1 second'
