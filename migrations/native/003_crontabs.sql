-- Adds until when the ticks of each crontab entry are decided, whether or not a tick was due. With it a scheduler
-- distinguishes a restart, which loses no tick, from a long absence.
create table if not exists :GRAPHILE_WORKER_SCHEMA._native_crontabs (
  identifier text constraint _native_crontabs_pkey primary key,
  decided_until timestamptz not null
);
alter table :GRAPHILE_WORKER_SCHEMA._native_crontabs enable row level security;
