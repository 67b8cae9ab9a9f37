-- Lets only one process of this library at a time migrate this schema, until the transaction ends.
--   $1 schema
select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('graphile_worker:native:migrate:' || $1::text, 0))
