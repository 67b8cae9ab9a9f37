-- Lets one sweep of a schema at a time through, until the end of its transaction.
--   $1 schema
select pg_try_advisory_xact_lock(hashtext('graphile_worker sweep'), hashtext($1::text)) as alone
