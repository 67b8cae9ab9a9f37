-- Adds the job of one tick of one crontab entry, unless this tick or a later one was taken before. Of all schedulers,
-- those of Node included, only one finds last_execution before the tick. The statement takes the tick and adds the job,
-- or does neither: if a worker takes the keyed job during add_job, add_job returns an empty row, and the division by
-- zero undoes the whole statement (22012).
--   $1 identifier  $2 tick  $3 task  $4 payload  $5 queue  $6 max_attempts  $7 key  $8 priority  $9 key mode
--   $10 false: take the tick, and add nothing
with taken as (
  insert into :GRAPHILE_WORKER_SCHEMA._private_known_crontabs as k (identifier, known_since, last_execution)
  values ($1::text, $2::timestamptz, $2::timestamptz)
  on conflict (identifier) do update
     set last_execution = excluded.last_execution
   where k.last_execution is null or k.last_execution < excluded.last_execution
  returning k.last_execution as tick
)
select j.id, 1 / (case when j.id is null then 0 else 1 end) as added
  from taken
 -- run_at is read from the row taken, so that no plan can add the job without it.
 cross join lateral :GRAPHILE_WORKER_SCHEMA.add_job(
    identifier => $3::text,
    payload => $4::text::json,
    queue_name => $5::text,
    run_at => taken.tick,
    max_attempts => $6::int,
    job_key => $7::text,
    priority => $8::int,
    job_key_mode => $9::text) j
 where $10::bool
