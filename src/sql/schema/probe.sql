-- Returns what the schema contains, and what the current role may do there. Reads catalogs only, so it works for every
-- role. Looks up each object by itself, because no object implies another. Compares an object by its number, because
-- pg_catalog has no operator for oid and regclass.
--   $1 schema
with here as (
  select n.oid,
         pg_catalog.format('%I.', n.nspname) as prefix,
         pg_catalog.has_schema_privilege(n.oid, 'usage') as may_use,
         pg_catalog.has_schema_privilege(n.oid, 'create') as may_create
    from pg_catalog.pg_namespace n
   where n.nspname = $1::text
),
-- Looking up a name without the usage right on its schema is an error, and not null.
found as (
  select case when may_use then pg_catalog.to_regclass(prefix || 'migrations') end as ledger,
         case when may_use then pg_catalog.to_regclass(prefix || '_private_jobs') end as jobs,
         case when may_use then pg_catalog.to_regclass(prefix || '_native_migrations') end as native_ledger,
         case when may_use then pg_catalog.to_regclass(prefix || '_native_jobs_queue') end as queue_index,
         case when may_use then pg_catalog.to_regclass(prefix || '_private_workers') end as workers,
         case when may_use then pg_catalog.to_regprocedure(prefix || 'worker_heartbeat(text, json)') end as heartbeat,
         case when may_use then pg_catalog.to_regclass(prefix || '_private_job_retirements') end as retirements
    from here
)
select
  pg_catalog.current_setting('server_version_num')::int as server_version,
  current_user::text as role,
  pg_catalog.current_database()::text as database,
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'create') as may_create_schema,
  here.oid is not null as has_schema,
  coalesce(here.may_use, false) as may_use,
  coalesce(here.may_create, false) as may_create,
  found.ledger is not null as has_ledger,
  coalesce(pg_catalog.has_table_privilege(found.ledger, 'select'), false) as may_read_ledger,
  found.jobs is not null as has_jobs,
  coalesce(
    (select pg_catalog.pg_has_role(c.relowner, 'usage')
       from pg_catalog.pg_class c
      where c.oid = found.jobs::oid), false) as owns_jobs,
  found.native_ledger is not null as has_native_ledger,
  exists (
    select from pg_catalog.pg_index i
     where i.indexrelid = found.queue_index::oid
       and i.indrelid = found.jobs::oid
       and i.indisvalid) as has_queue_index,
  found.workers is not null and found.heartbeat is not null as has_private_workers,
  found.retirements is not null as has_job_retirements
from (select) as always
left join here on true
left join found on true
