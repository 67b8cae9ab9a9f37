-- Settles an engine session in: the settings it relies on, whatever the database's defaults are.
-- Unknown settings of older servers are passed over. Answers which server process serves it.
with wanted(name, value) as (
  values
    ('default_transaction_isolation', 'read committed'),
    ('search_path', 'pg_catalog'),
    ('statement_timeout', $1::text),
    ('lock_timeout', $2::text),
    ('idle_in_transaction_session_timeout', $1::text),
    ('idle_session_timeout', '0'),
    ('transaction_timeout', '0'),
    ('client_min_messages', 'warning')
),
applied as materialized (
  select pg_catalog.set_config(s.name, w.value, false)
    from wanted w
    join pg_catalog.pg_settings s on s.name = w.name
)
select
  pg_catalog.pg_backend_pid() as pid,
  (select a.backend_start from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid()) as started,
  (select count(*) from applied) as settings
