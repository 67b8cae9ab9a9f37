-- Returns which of these jobs still exist. After a lost reply, a missing row means that its completion was written.
--   $1 ids
select j.id
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.id = any($1::bigint[])
