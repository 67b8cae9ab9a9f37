-- Returns the ids of the named tasks, and inserts the new ones. Known names use no sequence value. A task that another
-- session is inserting now may be missing: ask again.
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
