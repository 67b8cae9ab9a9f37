-- What stands in the schema, and what we may do there. Reads catalogs only, so that it answers
-- every role; each object is looked up by itself, as none implies another.
--   $1 schema
with here as (
  select n.oid,
         has_schema_privilege(n.oid, 'usage') as may_use,
         has_schema_privilege(n.oid, 'create') as may_create
    from pg_namespace n
   where n.nspname = $1::text
),
-- Looking up a name where we have no usage is an error, and not null.
found as (
  select case when may_use then to_regclass(format('%I.migrations', $1::text)) end as ledger,
         case when may_use then to_regclass(format('%I._private_jobs', $1::text)) end as jobs,
         case when may_use then to_regclass(format('%I._native_migrations', $1::text)) end as native_ledger,
         case when may_use then to_regclass(format('%I._native_jobs_queue', $1::text)) end as queue_index,
         case when may_use then to_regclass(format('%I._native_crontabs', $1::text)) end as crontabs,
         case when may_use then to_regclass(format('%I._native_workers', $1::text)) end as native_workers,
         case when may_use then to_regclass(format('%I._native_recoveries', $1::text)) end as recoveries,
         case when may_use then to_regclass(format('%I._private_workers', $1::text)) end as workers,
         case when may_use then to_regprocedure(format('%I.worker_heartbeat(text, json)', $1::text)) end as heartbeat,
         case when may_use then to_regclass(format('%I._private_job_retirements', $1::text)) end as retirements
    from here
)
select
  current_setting('server_version_num')::int as server_version,
  current_user::text as role,
  current_database()::text as database,
  has_database_privilege(current_database(), 'create') as may_create_schema,
  here.oid is not null as has_schema,
  coalesce(here.may_use, false) as may_use,
  coalesce(here.may_create, false) as may_create,
  found.ledger is not null as has_ledger,
  coalesce(has_table_privilege(found.ledger, 'select'), false) as may_read_ledger,
  found.jobs is not null as has_jobs,
  coalesce((select pg_has_role(c.relowner, 'usage') from pg_class c where c.oid = found.jobs), false) as owns_jobs,
  coalesce(row_security_active(found.jobs), false)
    and not exists (select from pg_policy p where p.polrelid = found.jobs) as jobs_are_hidden,
  found.native_ledger is not null as has_native_ledger,
  exists (
    select from pg_index i
     where i.indexrelid = found.queue_index
       and i.indrelid = found.jobs
       and i.indisvalid) as has_queue_index,
  coalesce(
    has_table_privilege(found.crontabs, 'select')
      and has_table_privilege(found.crontabs, 'insert')
      and has_table_privilege(found.crontabs, 'update')
      and not row_security_active(found.crontabs), false) as has_crontabs,
  (select coalesce(bool_and(has_table_privilege(t, privilege) and not row_security_active(t)), false)
     from unnest(array[found.native_workers, found.recoveries]) t,
          unnest(array['select', 'insert', 'update', 'delete']) privilege)
    and found.native_workers is not null and found.recoveries is not null as has_recovery,
  found.workers is not null and found.heartbeat is not null as has_private_workers,
  found.retirements is not null as has_job_retirements
from (select) as always
left join here on true
left join found on true
