-- Limits what an extra may cost, until the transaction ends: everyone who writes jobs waits behind
-- our wait for the table, and a call that misses its deadline costs us the session.
select pg_catalog.set_config(
         s.name, least(s.setting::int * 3 / 4, case s.name when 'lock_timeout' then 1000 end)::text, true)
  from pg_catalog.pg_settings s
 where s.name in ('lock_timeout', 'statement_timeout')
   and s.setting::int > 0
