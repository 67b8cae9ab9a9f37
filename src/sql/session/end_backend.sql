-- Ends the server processes of abandoned sessions. Never ends a later process with the same pid, nor one that a pooler
-- has lent to another application since. Returns the processes that still exist.
--   $1 pids  $2 when each started
select a.pid, a.backend_start as started, pg_catalog.pg_terminate_backend(a.pid)
  from rows from (pg_catalog.unnest($1::int[]), pg_catalog.unnest($2::timestamptz[])) given(pid, started)
  join pg_catalog.pg_stat_activity a on a.pid = given.pid and a.backend_start = given.started
 where a.application_name like '%graphile-worker:%'
