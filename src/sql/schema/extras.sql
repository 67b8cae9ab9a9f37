-- Returns which extras of this library are installed.
select id from :GRAPHILE_WORKER_SCHEMA._native_migrations
