-- Notes that one of our extras is in place.
--   $1 its id
insert into :GRAPHILE_WORKER_SCHEMA._native_migrations (id) values ($1::int)
