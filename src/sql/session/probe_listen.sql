-- Sends a notification to ourselves: if it does not arrive, nobody else's does.
--   $1 channel
select pg_catalog.pg_notify($1::text, '')
