-- Ends the session that sends this.
select pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())
