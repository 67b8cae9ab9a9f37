-- Makes us the only one of our kind that migrates this schema, until the transaction ends.
--   $1 schema
select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('graphile_worker:native:migrate:' || $1::text, 0))
