-- Which of these jobs still exist: after a lost reply, a completion whose row is gone has happened.
--   $1 ids
select j.id
  from :GRAPHILE_WORKER_SCHEMA._private_jobs j
 where j.id = any($1::bigint[])
