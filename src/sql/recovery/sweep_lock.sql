-- Lets only one sweep of a schema run at a time, until its transaction ends.
--   $1 schema
select pg_catalog.pg_try_advisory_xact_lock(pg_catalog.hashtext('graphile_worker sweep'), pg_catalog.hashtext($1::text)) as alone
