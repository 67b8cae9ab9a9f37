-- Lets remove_job lock its job first. A job that another session added between the two statements of the older function
-- stayed as failed, without a key. A function that another worker made is left alone, and so is one that belongs to
-- another role.
do $do$
declare
  function_text text;
begin
  select pg_catalog.pg_get_functiondef(p.oid)
    into function_text
    from pg_catalog.pg_proc p
   where p.proname operator(pg_catalog.=) 'remove_job'
     and p.pronamespace operator(pg_catalog.=) (
       select t.typnamespace
         from pg_catalog.pg_type t
        where t.oid operator(pg_catalog.=) cast(pg_catalog.pg_typeof(cast(null as :GRAPHILE_WORKER_SCHEMA.job_spec)) as pg_catalog.oid))
     and pg_catalog.strpos(p.prosrc, 'where job.key = remove_job.job_key') operator(pg_catalog.>) 0
     and pg_catalog.strpos(p.prosrc, 'where job.key = remove_job.job_key for update') operator(pg_catalog.=) 0
     and pg_catalog.pg_has_role(p.proowner, 'usage');

  if function_text is not null then
    execute pg_catalog.replace(function_text, E'\nbegin\n', E'\nbegin\n' || $new$  -- A job that is added from here on is not the one to remove.
  perform from :GRAPHILE_WORKER_SCHEMA._private_jobs as job where job.key = remove_job.job_key for update;
  if not found then
    return removed;
  end if;

$new$);
  end if;
end;
$do$;
