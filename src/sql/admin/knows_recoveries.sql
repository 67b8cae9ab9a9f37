-- Returns whether recoveries are counted here, and the current role may change the counts.
--   $1 schema
select coalesce(
  pg_catalog.has_table_privilege(
    pg_catalog.to_regclass(pg_catalog.format('%I._native_recoveries', $1)), 'select, delete'),
  false)
