-- Returns until when the ticks of these entries are decided. Only where _native_crontabs exists.
--   $1 identifiers
select c.identifier, c.decided_until
  from :GRAPHILE_WORKER_SCHEMA._native_crontabs c
 where c.identifier = any($1::text[])
