-- Adds objects that only this library uses, with names and a ledger of their own. Workers run without them, and
-- dropping them is safe. Runs in one transaction, by the owner of the tables.

create table if not exists :GRAPHILE_WORKER_SCHEMA._native_migrations (
  id int constraint _native_migrations_pkey primary key,
  ts timestamptz not null default now()
);
alter table :GRAPHILE_WORKER_SCHEMA._native_migrations enable row level security;

-- The waiting jobs of each named queue, in order. A claim goes from queue to queue in it, however many jobs wait behind
-- a locked queue.
create index if not exists _native_jobs_queue
  on :GRAPHILE_WORKER_SCHEMA._private_jobs (job_queue_id, priority, run_at)
  include (id, task_id)
  where is_available and job_queue_id is not null;
