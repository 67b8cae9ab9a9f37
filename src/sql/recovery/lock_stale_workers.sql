-- Returns which of these workers are still silent. None of them can send a heartbeat before this transaction ends.
-- Passes over a worker that is sending its heartbeat now.
--   $1 workers  $2 threshold of each, in seconds
select w.id
  from :GRAPHILE_WORKER_SCHEMA.:WORKERS w
  join rows from (pg_catalog.unnest($1::text[]), pg_catalog.unnest($2::float8[])) s(id, threshold) on s.id = w.id
 where w.last_heartbeat_at < pg_catalog.now() - s.threshold * interval '1 second'
   for update of w skip locked
