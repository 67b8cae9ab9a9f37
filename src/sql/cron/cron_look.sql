-- Returns the database's time, which is the one clock of all schedulers, and the last tick of each entry. Every row has
-- the time. If none of the entries is registered, one row has the time alone.
--   $1 identifiers
select pg_catalog.now() as now, k.identifier, k.known_since, k.last_execution
  from (select) as always
  left join :GRAPHILE_WORKER_SCHEMA._private_known_crontabs k on k.identifier = any($1::text[])
