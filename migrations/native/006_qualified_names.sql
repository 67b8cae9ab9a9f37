-- Calls functions by their schema in the bodies of the shared functions. The bodies run with the search_path of the
-- caller, in which another role may have created a function that fits better. Changes only functions that an older
-- install.sql created, which are recognized by the checksums of their bodies. Functions of other installers stay as
-- they are.
do $step$
declare
  made record;
  body text;
begin
  for made in
    select p.prosrc as body, pg_catalog.pg_get_functiondef(p.oid) as definition
      from pg_catalog.pg_proc p
     where p.pronamespace = cast(cast($name$:GRAPHILE_WORKER_SCHEMA$name$ as pg_catalog.regnamespace) as pg_catalog.oid)
       and pg_catalog.pg_has_role(p.proowner, 'usage')
       and pg_catalog.md5(pg_catalog.replace(p.prosrc, $name$:GRAPHILE_WORKER_SCHEMA$name$, '')) = any (array[
         '73c8c700f43ea29972e4fd05fe7ea054', '8024bae769460c27758a3a7f956a4de8', 'f1e66a9f4655c0b761c8e46b6ef58d30',
         '29da64e0eec5780d6b3c08392ae66cc6', '365c899e53cbb445c9c1079a6a985ea5', 'f63384f27b9da86d867aa206c1ea9c57',
         'f9b6f156b9763d830325b442079a7704', 'cf4789d118475def96270da2b159dc86'])
  loop
    body := pg_catalog.regexp_replace(
      made.body,
      '(?<![.\w])(array_length|json_typeof|jsonb_object_agg|now|pg_notify|quote_literal|random|unnest)\(',
      'pg_catalog.\1(', 'g');
    body := pg_catalog.regexp_replace(body, '::(jsonb?|text)\M', '::pg_catalog.\1', 'g');
    execute pg_catalog.replace(made.definition, made.body, body);
  end loop;
end
$step$;
