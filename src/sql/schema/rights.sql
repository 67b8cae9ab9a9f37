-- Returns which of these rights the current role lacks, and why. `missing`: the object does not exist. `policy`: row
-- security has no policy that lets the role do this; PostgreSQL then hides every row without an error. `grant`: a grant
-- is missing.
-- A right that is only used through a function is not needed where that function runs with the rights of its owner.
--   $1 schema  $2 objects  $3 rights (execute: the object is a function)  $4 functions that use it, null for none
with asked as (
  select a.object, a.privilege, a.through, a.place, n.oid as namespace
    from rows from (
      pg_catalog.unnest($2::pg_catalog.text[]),
      pg_catalog.unnest($3::pg_catalog.text[]),
      pg_catalog.unnest($4::pg_catalog.text[])) with ordinality a(object, privilege, through, place)
    left join pg_catalog.pg_namespace n on n.nspname = $1::pg_catalog.text
),
tables as (
  select a.place, c.oid is not null as is_there,
         pg_catalog.row_security_active(c.oid)
           and not exists (
             select
               from pg_catalog.pg_policy p
              where p.polrelid = c.oid
                and p.polpermissive
                and p.polcmd in (
                  '*',
                  case a.privilege when 'select' then 'r' when 'insert' then 'a' when 'update' then 'w' else 'd' end)
                and exists (
                  select
                    from pg_catalog.unnest(p.polroles) r
                   where case when r = 0::pg_catalog.oid then true else pg_catalog.pg_has_role(r, 'usage') end)) as is_closed,
         case a.privilege
           when 'delete' then pg_catalog.has_table_privilege(c.oid, 'delete')
           else pg_catalog.has_any_column_privilege(c.oid, a.privilege)
         end as is_granted
    from asked a
    left join pg_catalog.pg_class c
      on c.relnamespace = a.namespace and c.relname = a.object and c.relkind in ('r', 'p')
   where a.privilege <> 'execute'
),
functions as (
  select a.place, pg_catalog.count(f.oid) > 0 as is_there, false as is_closed,
         coalesce(pg_catalog.bool_or(pg_catalog.has_function_privilege(f.oid, 'execute')), false) as is_granted
    from asked a
    left join pg_catalog.pg_proc f on f.pronamespace = a.namespace and f.proname = a.object
   where a.privilege = 'execute'
   group by a.place
)
select a.object, a.privilege, a.through,
       case when not f.is_there then 'missing' when f.is_closed then 'policy' else 'grant' end as why
  from asked a
  join (select * from tables union all select * from functions) f on f.place = a.place
 where not (f.is_there and f.is_granted and not f.is_closed)
   and not exists (
     select
       from pg_catalog.pg_proc p
      where p.pronamespace = a.namespace and p.proname = a.through and p.prosecdef)
 order by a.place
