-- What recovery needs: which workers are live, and how often a job has been recovered. There is no foreign key to the
-- jobs, because it would make settling slower. Sweeps delete the rows of deleted jobs.

create table if not exists :GRAPHILE_WORKER_SCHEMA._native_workers (
  id text constraint _native_workers_pkey primary key,
  started_at timestamptz not null default now(),
  last_heartbeat_at timestamptz not null,
  metadata jsonb
);
alter table :GRAPHILE_WORKER_SCHEMA._native_workers enable row level security;

create table if not exists :GRAPHILE_WORKER_SCHEMA._native_recoveries (
  job_id bigint constraint _native_recoveries_pkey primary key,
  revision int not null,
  recoveries int not null
);
alter table :GRAPHILE_WORKER_SCHEMA._native_recoveries enable row level security;
