-- Deletes the recovery counts of deleted jobs. Looks up each job by its id, however many jobs there are, and waits for
-- no other session.
--   $1 ids, null for all
delete from :GRAPHILE_WORKER_SCHEMA._native_recoveries r
 where r.job_id = any(array(
   select n.job_id
     from :GRAPHILE_WORKER_SCHEMA._native_recoveries n
    where ($1::bigint[] is null or n.job_id = any($1::bigint[]))
      and (select j.id from :GRAPHILE_WORKER_SCHEMA._private_jobs j where j.id = n.job_id) is null
      for update skip locked))
