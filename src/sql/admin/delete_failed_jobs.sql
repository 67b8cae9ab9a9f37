-- Deletes some of the jobs that have failed permanently. Passes over a job that another session is changing.
--   $1 the largest number of jobs to delete
with failed as materialized (
  select j.id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where not j.is_available and j.locked_at is null and j.attempts >= j.max_attempts
   limit $1
     for update skip locked
)
delete from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.id = any(array(select f.id from failed f))
