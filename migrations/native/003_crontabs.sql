-- Adds until when the ticks of each crontab entry have been decided, whether or not one was due:
-- by this a scheduler tells a restart, over which no tick is lost, from an absence.
create table if not exists :GRAPHILE_WORKER_SCHEMA._native_crontabs (
  identifier text constraint _native_crontabs_pkey primary key,
  decided_until timestamptz not null
);
alter table :GRAPHILE_WORKER_SCHEMA._native_crontabs enable row level security;
