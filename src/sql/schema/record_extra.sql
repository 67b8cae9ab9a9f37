-- Records that an extra of this library is installed.
--   $1 its id
insert into :GRAPHILE_WORKER_SCHEMA._native_migrations (id) values ($1::int)
