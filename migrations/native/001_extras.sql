-- Adds what only this library uses, under names of its own, with a ledger of its own. Everything
-- works without; dropping any of it is safe. Runs in one transaction, by the owner of the tables.

create table if not exists :GRAPHILE_WORKER_SCHEMA._native_migrations (
  id int constraint _native_migrations_pkey primary key,
  ts timestamptz not null default now()
);
alter table :GRAPHILE_WORKER_SCHEMA._native_migrations enable row level security;

-- The waiting jobs of each named queue, in order: a claim hops from queue to queue, however many
-- jobs wait behind a locked one.
create index if not exists _native_jobs_queue
  on :GRAPHILE_WORKER_SCHEMA._private_jobs (job_queue_id, priority, run_at)
  include (id, task_id)
  where is_available and job_queue_id is not null;
