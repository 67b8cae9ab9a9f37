-- Returns the server process that runs this statement. Sets nothing. Names everything by its schema, because the
-- search_path is the role's.
select
  pg_catalog.pg_backend_pid() as pid,
  (select a.backend_start
     from pg_catalog.pg_stat_activity a
    where a.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()) as started
