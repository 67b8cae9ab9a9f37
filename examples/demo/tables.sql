-- The application's tables. Only the trigger knows the job queue.
create table documents (id bigint generated always as identity primary key, folder text, path text, body text);
create table counts    (document bigint primary key, words bigint, lines bigint, longest bigint);
create table totals    (folder text primary key, documents bigint, words bigint);
create table summaries (folder text primary key, documents bigint, characters bigint);

create function enqueue() returns trigger language plpgsql as $$
begin
  -- This job runs in parallel with all others.
  perform graphile_worker.add_job('count', json_build_object('document', new.id));
  -- Jobs of one folder run one after the other.
  perform graphile_worker.add_job('add_up', json_build_object('document', new.id), queue_name => new.folder);
  -- While the folder's job waits, its key makes this call replace it and delay it. So one run serves many rows.
  -- If a worker claims the waiting job at the same time, the call returns a row of nulls: repeat it.
  while (graphile_worker.add_job('summarise', json_build_object('folder', new.folder),
    job_key => 'summarise ' || new.folder, run_at => now() + interval '0.5 s')).id is null loop end loop;
  -- A job that always fails. It stays in the table, with its error.
  if new.id % 1000 = 0 then
    perform graphile_worker.add_job('publish', json_build_object('document', new.id), max_attempts => 1);
  end if;
  return null;
end $$;
create trigger enqueue after insert on documents for each row execute function enqueue();
