-- What became of a transaction: 'committed', 'aborted', 'in progress', or null if this server does not know. An id that
-- the server has not assigned yet is an error (22023): a crash or a failover lost the transaction.
-- After a crash the server may assign the ids of lost transactions again. No transaction was lost if this is the same
-- server, and one of its sessions is older than the transaction: a crash ends all sessions.
--   $1 transaction  $2 when it began  $3 when its server started
select
  case when not pg_catalog.pg_is_in_recovery() then pg_catalog.txid_status($1) end as status,
  pg_catalog.pg_postmaster_start_time() operator(pg_catalog.=) $3
    and exists (
      select from pg_catalog.pg_stat_activity a where a.backend_start operator(pg_catalog.<) $2) as never_crashed
