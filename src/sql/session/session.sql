-- Sets what an engine session needs, if it still has the server process that was looked up. Passes over settings that
-- an older server does not know. Returns each setting with its earlier value, null for the default.
-- The role's search_path stays, for users' triggers, but pg_catalog comes first in it, as in a path that does not name
-- it.
--   $1 pid  $2 names  $3 values
with wanted(name, value) as (
  select w.name, w.value
    from rows from (pg_catalog.unnest($2), pg_catalog.unnest($3)) w(name, value)
  union all
  select 'search_path', 'pg_catalog, ' operator(pg_catalog.||) pg_catalog.current_setting('search_path')
   where pg_catalog.strpos(pg_catalog.current_setting('search_path'), 'pg_catalog') operator(pg_catalog.>) 1
),
known as materialized (
  select s.name, s.setting, s.reset_val, w.value
    from wanted w
    join pg_catalog.pg_settings s on s.name operator(pg_catalog.=) w.name
   where pg_catalog.pg_backend_pid() operator(pg_catalog.=) $1
)
select
  k.name,
  case when k.setting operator(pg_catalog.<>) k.reset_val then k.setting end as before,
  pg_catalog.set_config(k.name, k.value, false)
  from known k
