-- Notes that all ticks of these entries up to a minute were decided. The first scheduler of that minute writes; the
-- others find it written. Only where _native_crontabs exists.
--   $1 identifiers  $2 minute
insert into :GRAPHILE_WORKER_SCHEMA._native_crontabs as c (identifier, decided_until)
select e.identifier, $2::timestamptz
  from pg_catalog.unnest($1::text[]) e(identifier)
 where not exists (
   select from :GRAPHILE_WORKER_SCHEMA._native_crontabs k
    where k.identifier = e.identifier and k.decided_until >= $2::timestamptz)
 order by e.identifier
on conflict (identifier) do update
   set decided_until = excluded.decided_until
 where c.decided_until < excluded.decided_until
