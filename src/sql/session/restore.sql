-- Sets settings back to their earlier values; null is the default.
--   $1 names  $2 values
select pg_catalog.set_config(b.name, b.value, false)
  from rows from (pg_catalog.unnest($1), pg_catalog.unnest($2)) b(name, value)
