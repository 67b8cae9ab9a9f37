-- Waits until no other session is in a transaction with this statement and the same $1. Claims of many workers then come
-- one after another: a claim that runs beside others reads all the rows that those have locked, to skip them.
-- Fails with 55P03 after a second.
--   $1 the number of the session among those of its worker that claim, so that no worker waits for itself
select pg_catalog.set_config('lock_timeout', '1000', true),
       pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(
         pg_catalog.concat('claim ', $1::int),
         cast(cast(cast($name$:GRAPHILE_WORKER_SCHEMA._private_jobs$name$ as pg_catalog.regclass) as pg_catalog.oid) as bigint)))
