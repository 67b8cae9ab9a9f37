-- Adds many jobs in one call. Returns the rows in any order. A keyed job that a worker took meanwhile has no row. This
-- statement cannot see the names that it inserts, so the rows contain ids. A run_at that is left out becomes the
-- transaction's now().
--   $1 identifiers  $2 payloads  $3 queues  $4 run_at  $5 max_attempts  $6 keys  $7 priorities
--   $8 flags as JSON arrays  $9 keep the run_at of jobs that were never tried
select
  j.id, j.job_queue_id, j.payload, j.priority, j.run_at, j.attempts, j.max_attempts, j.created_at, j.key,
  j.revision, j.flags::pg_catalog.text as flags,
  j.task_id,
  j.run_at = pg_catalog.now() as just_now
  from :GRAPHILE_WORKER_SCHEMA.add_jobs(
    array(
      select
        row(
          s.identifier,
          s.payload::pg_catalog.json,
          s.queue_name,
          s.run_at,
          s.max_attempts::pg_catalog.int2,
          s.key,
          s.priority::pg_catalog.int2,
          case when s.flags is not null then array(select pg_catalog.jsonb_array_elements_text(s.flags::pg_catalog.jsonb)) end
        ):::GRAPHILE_WORKER_SCHEMA.job_spec
        from rows from (
          pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
          pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8))
          with ordinality s(identifier, payload, queue_name, run_at, max_attempts, key, priority, flags, place)
       order by s.place),
    $9) j
 where j.id is not null
