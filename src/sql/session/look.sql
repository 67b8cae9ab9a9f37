-- Which server process runs this statement. Sets nothing, and names everything by its schema: the path is the role's.
select
  pg_catalog.pg_backend_pid() as pid,
  (select a.backend_start
     from pg_catalog.pg_stat_activity a
    where a.pid operator(pg_catalog.=) pg_catalog.pg_backend_pid()) as started
