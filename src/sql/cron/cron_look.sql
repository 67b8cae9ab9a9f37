-- Asks the one clock of all schedulers, and how far each entry has come. The time stands in every
-- row; entries that nobody has registered have no other columns.
--   $1 identifiers
select pg_catalog.now() as now, k.identifier, k.known_since, k.last_execution
  from (select) as always
  left join :GRAPHILE_WORKER_SCHEMA._private_known_crontabs k on k.identifier = any($1::text[])
