-- Inserts crontab entries that are not known yet. Their ticks count from now on.
--   $1 identifiers  $2 since when they are known
insert into :GRAPHILE_WORKER_SCHEMA._private_known_crontabs (identifier, known_since)
select e.identifier, $2::timestamptz
  from pg_catalog.unnest($1::text[]) e(identifier)
 where not exists (
   select from :GRAPHILE_WORKER_SCHEMA._private_known_crontabs k where k.identifier = e.identifier)
 order by e.identifier
on conflict (identifier) do nothing
