-- Limits the cost of an extra until the transaction ends. While this session waits for the table, all sessions that
-- write jobs wait behind it. A call that misses its deadline costs this session.
select pg_catalog.set_config(
         s.name, least(s.setting::int * 3 / 4, case s.name when 'lock_timeout' then 1000 end)::text, true)
  from pg_catalog.pg_settings s
 where s.name in ('lock_timeout', 'statement_timeout')
   and s.setting::int > 0
