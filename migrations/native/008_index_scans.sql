-- Keeps the plans of add_jobs, add_job and remove_job on indexes. PL/pgSQL plans a statement once per session and keeps
-- the plan. A session that first adds jobs to an empty table would read the whole table at each later call, until the
-- next ANALYZE. Leaves a function alone if another worker created it, or if it belongs to another role.
do $do$
declare
  ours pg_catalog.regprocedure;
begin
  for ours in
    select cast(p.oid as pg_catalog.regprocedure)
      from pg_catalog.pg_proc p
      cross join pg_catalog.unnest(array[
        '-- Only names that are missing are inserted, so that known ones use up no ids.',
        '-- Without a key there is nothing to choose, whatever the mode says.',
        'where job.key = remove_job.job_key']) as marks(mark)
     where p.pronamespace operator(pg_catalog.=) (
       select t.typnamespace
         from pg_catalog.pg_type t
        where t.oid operator(pg_catalog.=) cast(pg_catalog.pg_typeof(cast(null as :GRAPHILE_WORKER_SCHEMA.job_spec)) as pg_catalog.oid))
       and pg_catalog.strpos(p.prosrc, marks.mark) operator(pg_catalog.>) 0
       and pg_catalog.pg_has_role(p.proowner, 'usage')
  loop
    execute pg_catalog.format('alter function %s set enable_seqscan = off', ours);
  end loop;
end;
$do$;
