-- Returns whether a job is as the transaction that added it left it: its time is that of the transaction.
--   $1 job  $2 when the transaction began
select exists (
  select
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where j.id operator(pg_catalog.=) $1
     and (j.created_at operator(pg_catalog.=) $2 or j.updated_at operator(pg_catalog.=) $2))
