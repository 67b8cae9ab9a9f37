-- Ends the server process of a session that was given up; never a later process with the same pid.
select pg_catalog.pg_terminate_backend(a.pid)
  from pg_catalog.pg_stat_activity a
 where a.pid = $1::int
   and a.backend_start = $2::timestamptz
