-- Sends a notification to this session. If it does not arrive, no other notification does.
--   $1 channel
select pg_catalog.pg_notify($1::text, '')
