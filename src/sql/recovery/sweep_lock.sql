-- Lets one sweep of a schema at a time through, until the end of its transaction.
--   $1 schema
select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('graphile_worker sweep'), pg_catalog.hashtext($1::text)) as alone
