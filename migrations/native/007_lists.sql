-- Lets add_jobs join two lists of one key as text, where an older install.sql created it. That add_jobs joins them
-- through jsonb, which refuses \u0000 and reorders fields. Must come after 006, which recognizes the function by its
-- checksum. Leaves a function alone if another worker created it, or if it belongs to another role.

do $do$
declare
  function_text text;
begin
  select pg_catalog.pg_get_functiondef(p.oid)
    into function_text
    from pg_catalog.pg_proc p
   where p.proname operator(pg_catalog.=) 'add_jobs'
     and p.pronamespace operator(pg_catalog.=) (
       select t.typnamespace
         from pg_catalog.pg_type t
        where t.oid operator(pg_catalog.=) cast(pg_catalog.pg_typeof(cast(null as :GRAPHILE_WORKER_SCHEMA.job_spec)) as pg_catalog.oid))
     and pg_catalog.strpos(p.prosrc, '-- Only names that are missing are inserted, so that known ones use up no ids.') operator(pg_catalog.>) 0
     and pg_catalog.strpos(p.prosrc, '(job.payload::pg_catalog.jsonb || excluded.payload::pg_catalog.jsonb)::pg_catalog.json') operator(pg_catalog.>) 0
     and pg_catalog.pg_has_role(p.proowner, 'usage');

  if function_text is not null then
    execute pg_catalog.replace(
      function_text,
      '(job.payload::pg_catalog.jsonb || excluded.payload::pg_catalog.jsonb)::pg_catalog.json',
      $new$case
               when pg_catalog.json_array_length(job.payload) = 0 then excluded.payload
               when pg_catalog.json_array_length(excluded.payload) = 0 then job.payload
               else cast(pg_catalog.concat(
                 pg_catalog.left(pg_catalog.rtrim(cast(job.payload as pg_catalog.text), E' \t\n\r'), -1), ', ',
                 pg_catalog.substr(pg_catalog.ltrim(cast(excluded.payload as pg_catalog.text), E' \t\n\r'), 2)) as pg_catalog.json)
             end$new$);
  end if;
end;
$do$;
