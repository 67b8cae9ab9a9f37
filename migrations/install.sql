-- Installs the tables, types and functions that all workers of this schema share. They are as Node's graphile-worker
-- leaves them after its migration 18, under the same names. So any worker can start on the schema and add its own later
-- migrations.
-- Functions are called by their schema, pg_catalog, also in bodies: these run with the search_path of the caller.
-- Runs in one transaction. The schema exists already. An existing ledger is used if it is empty.

create table if not exists :GRAPHILE_WORKER_SCHEMA.migrations (
  id int constraint migrations_pkey primary key,
  ts timestamptz not null default pg_catalog.now(),
  breaking boolean not null default false
);

-- The ledger is filled first. Of two installers, of this library or Node's, one waits here for the other's transaction,
-- and then finds (23505) that the schema is installed.
insert into :GRAPHILE_WORKER_SCHEMA.migrations (id, breaking)
select id, id in (1, 3, 11, 13, 14, 16)
  from pg_catalog.generate_series(1, 18) as id
 order by id;

create table :GRAPHILE_WORKER_SCHEMA._private_tasks (
  id int generated always as identity (sequence name :GRAPHILE_WORKER_SCHEMA.tasks_id_seq)
    constraint tasks_pkey primary key,
  identifier text not null
    constraint tasks_identifier_key unique
    constraint tasks_identifier_check check (pg_catalog.length(identifier) <= 128)
);
alter table :GRAPHILE_WORKER_SCHEMA._private_tasks enable row level security;

create table :GRAPHILE_WORKER_SCHEMA._private_job_queues (
  id int generated always as identity (sequence name :GRAPHILE_WORKER_SCHEMA.job_queues_id_seq)
    constraint job_queues_pkey1 primary key,
  queue_name text not null
    constraint job_queues_queue_name_key unique
    constraint job_queues_queue_name_check check (pg_catalog.length(queue_name) <= 128),
  locked_at timestamptz,
  locked_by text,
  is_available boolean not null generated always as (locked_at is null) stored
);
alter table :GRAPHILE_WORKER_SCHEMA._private_job_queues enable row level security;

-- There are no foreign keys. Tasks and queues are looked up by name at every enqueue, and a foreign key would cost two
-- checks for each job.
create table :GRAPHILE_WORKER_SCHEMA._private_jobs (
  id bigint generated always as identity (sequence name :GRAPHILE_WORKER_SCHEMA.jobs_id_seq1)
    constraint jobs_pkey1 primary key,
  job_queue_id int,
  task_id int not null,
  payload json not null default '{}'::pg_catalog.json,
  priority smallint not null default 0,
  run_at timestamptz not null default pg_catalog.now(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 25
    constraint jobs_max_attempts_check check (max_attempts >= 1),
  last_error text,
  created_at timestamptz not null default pg_catalog.now(),
  updated_at timestamptz not null default pg_catalog.now(),
  key text
    constraint jobs_key_key1 unique
    constraint jobs_key_check check (pg_catalog.length(key) > 0 and pg_catalog.length(key) <= 512),
  locked_at timestamptz,
  locked_by text,
  revision int not null default 0,
  flags jsonb,
  is_available boolean not null generated always as (locked_at is null and attempts < max_attempts) stored
);
alter table :GRAPHILE_WORKER_SCHEMA._private_jobs enable row level security;

create index jobs_main_index
  on :GRAPHILE_WORKER_SCHEMA._private_jobs (priority, run_at)
  include (id, task_id, job_queue_id)
  where is_available = true;

create index jobs_no_queue_index
  on :GRAPHILE_WORKER_SCHEMA._private_jobs (priority, run_at)
  include (id, task_id)
  where is_available = true and job_queue_id is null;

create table :GRAPHILE_WORKER_SCHEMA._private_known_crontabs (
  identifier text not null constraint known_crontabs_pkey primary key,
  known_since timestamptz not null,
  last_execution timestamptz
);
alter table :GRAPHILE_WORKER_SCHEMA._private_known_crontabs enable row level security;

create view :GRAPHILE_WORKER_SCHEMA.jobs as
select
  jobs.id,
  job_queues.queue_name,
  tasks.identifier as task_identifier,
  jobs.priority,
  jobs.run_at,
  jobs.attempts,
  jobs.max_attempts,
  jobs.last_error,
  jobs.created_at,
  jobs.updated_at,
  jobs.key,
  jobs.locked_at,
  jobs.locked_by,
  jobs.revision,
  jobs.flags
from :GRAPHILE_WORKER_SCHEMA._private_jobs as jobs
join :GRAPHILE_WORKER_SCHEMA._private_tasks as tasks on tasks.id = jobs.task_id
left join :GRAPHILE_WORKER_SCHEMA._private_job_queues as job_queues on job_queues.id = jobs.job_queue_id;

create type :GRAPHILE_WORKER_SCHEMA.job_spec as (
  identifier text,
  payload json,
  queue_name text,
  run_at timestamptz,
  max_attempts smallint,
  job_key text,
  priority smallint,
  flags text[]
);

-- Adds jobs. If a key is taken and the job that holds it waits, the new job replaces it. If that job runs or has failed
-- permanently, it loses its key and never runs again.
-- If a worker starts that job during the call, no row is returned for that spec: the caller must check, and try again.
-- Two lists of one key are joined as text: jsonb would refuse \u0000, and reorder fields.
create function :GRAPHILE_WORKER_SCHEMA.add_jobs(
  specs :GRAPHILE_WORKER_SCHEMA.job_spec[],
  job_key_preserve_run_at boolean default false
)
returns setof :GRAPHILE_WORKER_SCHEMA._private_jobs
language plpgsql
as $$
#variable_conflict use_column
begin
  -- Only names that are missing are inserted, so that known ones use up no ids. Sorted, so that
  -- two calls with the same new names cannot wait for each other.
  insert into :GRAPHILE_WORKER_SCHEMA._private_tasks (identifier)
  select distinct spec.identifier
    from pg_catalog.unnest(add_jobs.specs) as spec
   where not exists (
     select from :GRAPHILE_WORKER_SCHEMA._private_tasks as known
      where known.identifier = spec.identifier
   )
   order by 1
  on conflict do nothing;

  insert into :GRAPHILE_WORKER_SCHEMA._private_job_queues (queue_name)
  select distinct spec.queue_name
    from pg_catalog.unnest(add_jobs.specs) as spec
   where spec.queue_name is not null
     and not exists (
       select from :GRAPHILE_WORKER_SCHEMA._private_job_queues as known
        where known.queue_name = spec.queue_name
     )
   order by 1
  on conflict do nothing;

  update :GRAPHILE_WORKER_SCHEMA._private_jobs as holder
     set key = null,
         attempts = holder.max_attempts,
         updated_at = pg_catalog.now()
    from pg_catalog.unnest(add_jobs.specs) as spec
   where holder.key = spec.job_key
     and holder.is_available is not true;

  perform pg_catalog.pg_notify(
    'jobs:insert',
    '{"r":' || pg_catalog.random()::pg_catalog.text || ',"count":' || pg_catalog.array_length(add_jobs.specs, 1)::pg_catalog.text || '}'
  );

  return query
  insert into :GRAPHILE_WORKER_SCHEMA._private_jobs as job (
    job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags
  )
  select
    spec.queue_id,
    spec.task_id,
    coalesce(spec.payload, '{}'::pg_catalog.json),
    coalesce(spec.run_at, pg_catalog.now()),
    coalesce(spec.max_attempts, 25::smallint),
    spec.job_key,
    coalesce(spec.priority, 0::smallint),
    (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(spec.flags) as flag)
  -- The jobs of one queue run in the order of the call. Sorted before anything is computed from them, so that a spec
  -- that is refused has used up its id, as it does elsewhere.
  from (
    select spec.*, task.id as task_id, queue.id as queue_id
      from pg_catalog.unnest(add_jobs.specs) with ordinality as spec
      join :GRAPHILE_WORKER_SCHEMA._private_tasks as task on task.identifier = spec.identifier
      left join :GRAPHILE_WORKER_SCHEMA._private_job_queues as queue on queue.queue_name = spec.queue_name
     order by spec.ordinality
  ) as spec
  on conflict (key) do update
     set job_queue_id = excluded.job_queue_id,
         task_id = excluded.task_id,
         payload = case
           when pg_catalog.json_typeof(job.payload) = 'array' and pg_catalog.json_typeof(excluded.payload) = 'array'
             then case
               when pg_catalog.json_array_length(job.payload) = 0 then excluded.payload
               when pg_catalog.json_array_length(excluded.payload) = 0 then job.payload
               else cast(pg_catalog.concat(
                 pg_catalog.left(pg_catalog.rtrim(cast(job.payload as pg_catalog.text), E' \t\n\r'), -1), ', ',
                 pg_catalog.substr(pg_catalog.ltrim(cast(excluded.payload as pg_catalog.text), E' \t\n\r'), 2)) as pg_catalog.json)
             end
           else excluded.payload
         end,
         run_at = case
           when add_jobs.job_key_preserve_run_at and job.attempts = 0 then job.run_at
           else excluded.run_at
         end,
         max_attempts = excluded.max_attempts,
         priority = excluded.priority,
         flags = excluded.flags,
         revision = job.revision + 1,
         attempts = 0,
         last_error = null,
         updated_at = pg_catalog.now()
   where job.locked_at is null
  returning job.*;
end;
$$;

-- Adds one job. `job_key_mode` decides what happens to a job that holds the same key. `replace` and `preserve_run_at`
-- are as in add_jobs. `unsafe_dedupe` leaves that job as it is, even if it runs or has failed permanently, and counts
-- one more revision.
-- A row of nulls means that no job was added, because a worker took the other job meanwhile: try again.
create function :GRAPHILE_WORKER_SCHEMA.add_job(
  identifier text,
  payload json default null,
  queue_name text default null,
  run_at timestamptz default null,
  max_attempts int default null,
  job_key text default null,
  priority int default null,
  flags text[] default null,
  job_key_mode text default 'replace'
)
returns :GRAPHILE_WORKER_SCHEMA._private_jobs
language plpgsql
as $$
#variable_conflict use_column
declare
  added :GRAPHILE_WORKER_SCHEMA._private_jobs;
begin
  -- Without a key there is nothing to choose, whatever the mode says.
  if add_job.job_key is null or coalesce(add_job.job_key_mode, 'replace') in ('replace', 'preserve_run_at') then
    select job.*
      into added
      from :GRAPHILE_WORKER_SCHEMA.add_jobs(
        array[row(
          add_job.identifier,
          add_job.payload,
          add_job.queue_name,
          add_job.run_at,
          add_job.max_attempts::smallint,
          add_job.job_key,
          add_job.priority::smallint,
          add_job.flags
        ):::GRAPHILE_WORKER_SCHEMA.job_spec],
        coalesce(add_job.job_key_mode = 'preserve_run_at', false)
      ) as job;
    return added;
  end if;

  if add_job.job_key_mode <> 'unsafe_dedupe' then
    raise exception 'job_key_mode is %, and must be replace, preserve_run_at or unsafe_dedupe', pg_catalog.quote_literal(add_job.job_key_mode)
      using errcode = 'GWBKM';
  end if;

  insert into :GRAPHILE_WORKER_SCHEMA._private_tasks (identifier)
  select add_job.identifier
   where not exists (
     select from :GRAPHILE_WORKER_SCHEMA._private_tasks as known
      where known.identifier = add_job.identifier
   )
  on conflict do nothing;

  insert into :GRAPHILE_WORKER_SCHEMA._private_job_queues (queue_name)
  select add_job.queue_name
   where add_job.queue_name is not null
     and not exists (
       select from :GRAPHILE_WORKER_SCHEMA._private_job_queues as known
        where known.queue_name = add_job.queue_name
     )
  on conflict do nothing;

  insert into :GRAPHILE_WORKER_SCHEMA._private_jobs as job (
    job_queue_id, task_id, payload, run_at, max_attempts, key, priority, flags
  )
  select
    queue.id,
    task.id,
    coalesce(add_job.payload, '{}'::pg_catalog.json),
    coalesce(add_job.run_at, pg_catalog.now()),
    coalesce(add_job.max_attempts::smallint, 25::smallint),
    add_job.job_key,
    coalesce(add_job.priority::smallint, 0::smallint),
    (select pg_catalog.jsonb_object_agg(flag, true) from pg_catalog.unnest(add_job.flags) as flag)
  from :GRAPHILE_WORKER_SCHEMA._private_tasks as task
  left join :GRAPHILE_WORKER_SCHEMA._private_job_queues as queue on queue.queue_name = add_job.queue_name
  where task.identifier = add_job.identifier
  on conflict (key) do update
     set revision = job.revision + 1,
         updated_at = pg_catalog.now()
  returning job.*
    into added;

  -- Nothing new for anyone when the job was there before.
  if added.revision = 0 then
    perform pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::pg_catalog.text || ',"count":1}');
  end if;

  return added;
end;
$$;

-- Removes the job that holds the key. A running job runs to its end without the key, and never again. A job that has
-- been locked for more than four hours does not count as running. An unknown key returns a row of nulls.
create function :GRAPHILE_WORKER_SCHEMA.remove_job(job_key text)
returns :GRAPHILE_WORKER_SCHEMA._private_jobs
language plpgsql
strict
as $$
#variable_conflict use_column
declare
  removed :GRAPHILE_WORKER_SCHEMA._private_jobs;
begin
  -- A job that is added from here on is not the one to remove.
  perform from :GRAPHILE_WORKER_SCHEMA._private_jobs as job where job.key = remove_job.job_key for update;
  if not found then
    return removed;
  end if;

  delete from :GRAPHILE_WORKER_SCHEMA._private_jobs as job
   where job.key = remove_job.job_key
     and (job.locked_at is null or job.locked_at < pg_catalog.now() - interval '4 hours')
  returning job.*
    into removed;

  if found then
    perform pg_catalog.pg_notify('jobs:insert', '{"r":' || pg_catalog.random()::pg_catalog.text || ',"count":-1}');
    return removed;
  end if;

  update :GRAPHILE_WORKER_SCHEMA._private_jobs as job
     set key = null,
         attempts = job.max_attempts,
         updated_at = pg_catalog.now()
   where job.key = remove_job.job_key
  returning job.*
    into removed;

  return removed;
end;
$$;

-- Deletes jobs as if they had succeeded. Leaves running jobs alone, and does not return them.
create function :GRAPHILE_WORKER_SCHEMA.complete_jobs(job_ids bigint[])
returns setof :GRAPHILE_WORKER_SCHEMA._private_jobs
language sql
as $$
  delete from :GRAPHILE_WORKER_SCHEMA._private_jobs as job
   where job.id = any(complete_jobs.job_ids)
     and (job.locked_at is null or job.locked_at < pg_catalog.now() - interval '4 hours')
  returning job.*;
$$;

-- Fails jobs permanently, with a reason. Leaves running jobs alone, and does not return them.
create function :GRAPHILE_WORKER_SCHEMA.permanently_fail_jobs(
  job_ids bigint[],
  error_message text default null
)
returns setof :GRAPHILE_WORKER_SCHEMA._private_jobs
language sql
as $$
  update :GRAPHILE_WORKER_SCHEMA._private_jobs as job
     set last_error = coalesce(permanently_fail_jobs.error_message, 'Manually marked as failed'),
         attempts = job.max_attempts,
         updated_at = pg_catalog.now()
   where job.id = any(permanently_fail_jobs.job_ids)
     and (job.locked_at is null or job.locked_at < pg_catalog.now() - interval '4 hours')
  returning job.*;
$$;

-- Changes when, with which priority and how often jobs are tried. A parameter that is null leaves its column as it is.
-- Leaves running jobs alone, and does not return them. Workers notice the change at their next poll.
create function :GRAPHILE_WORKER_SCHEMA.reschedule_jobs(
  job_ids bigint[],
  run_at timestamptz default null,
  priority int default null,
  attempts int default null,
  max_attempts int default null
)
returns setof :GRAPHILE_WORKER_SCHEMA._private_jobs
language sql
as $$
  update :GRAPHILE_WORKER_SCHEMA._private_jobs as job
     set run_at = coalesce(reschedule_jobs.run_at, job.run_at),
         priority = coalesce(reschedule_jobs.priority::smallint, job.priority),
         attempts = coalesce(reschedule_jobs.attempts::smallint, job.attempts),
         max_attempts = coalesce(reschedule_jobs.max_attempts::smallint, job.max_attempts),
         updated_at = pg_catalog.now()
   where job.id = any(reschedule_jobs.job_ids)
     and (job.locked_at is null or job.locked_at < pg_catalog.now() - interval '4 hours')
  returning job.*;
$$;

-- Unlocks the jobs and queues of workers that are known to be dead. Their jobs run again at once.
create function :GRAPHILE_WORKER_SCHEMA.force_unlock_workers(worker_ids text[])
returns void
language sql
as $$
  update :GRAPHILE_WORKER_SCHEMA._private_jobs as job
     set locked_at = null,
         locked_by = null
   where job.locked_by = any(force_unlock_workers.worker_ids);

  update :GRAPHILE_WORKER_SCHEMA._private_job_queues as queue
     set locked_at = null,
         locked_by = null
   where queue.locked_by = any(force_unlock_workers.worker_ids);
$$;
