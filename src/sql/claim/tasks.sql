-- The ids of the tasks named, entering those that are new. Known names burn no sequence value. One that is being
-- entered elsewhere at this moment may be missing: ask again.
--   $1 identifiers
with wanted as (
  select distinct name from pg_catalog.unnest($1::text[]) w(name)
),
entered as (
  insert into :GRAPHILE_WORKER_SCHEMA._private_tasks (identifier)
  select w.name
    from wanted w
   where not exists (
     select from :GRAPHILE_WORKER_SCHEMA._private_tasks t where t.identifier = w.name)
   order by w.name
  on conflict (identifier) do nothing
  returning id, identifier
)
select t.id, t.identifier
  from :GRAPHILE_WORKER_SCHEMA._private_tasks t
  join wanted w on w.name = t.identifier
union
select id, identifier from entered
