-- Begins a transaction that this library commits, whatever the defaults of the role and the database are. All settings
-- end with it. Read-only stays as it is: it means that an administrator allows no writes.
-- Returns what identifies the transaction when the database is asked for its outcome: its id, when it began, and when
-- the server started, in microseconds.
-- The statements are one message, which takes no parameters. So the caller inserts two numbers: how many milliseconds a
-- statement may take, and how long the server waits for the next one.
begin isolation level read committed, not deferrable;
select
  pg_catalog.set_config('statement_timeout', ':STATEMENT_MS', true),
  pg_catalog.set_config('lock_timeout', ':STATEMENT_MS', true),
  pg_catalog.set_config('idle_in_transaction_session_timeout', ':IDLE_MS', true),
  pg_catalog.set_config('row_security', 'on', true),
  -- Only PostgreSQL 17 and later have this setting.
  case when pg_catalog.current_setting('transaction_timeout', true) is not null
    then pg_catalog.set_config('transaction_timeout', '0', true) end;
select
  pg_catalog.txid_current(),
  cast(pg_catalog.date_part('epoch', pg_catalog.now())
    operator(pg_catalog.*) cast(1000000 as pg_catalog.float8) as pg_catalog.int8),
  cast(pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time())
    operator(pg_catalog.*) cast(1000000 as pg_catalog.float8) as pg_catalog.int8)
