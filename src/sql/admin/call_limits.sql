-- Ends the transaction's statements on the server by the time the caller has stopped waiting, and waits no
-- longer than that for locks.
--   $1 milliseconds for a statement  $2 milliseconds for a lock
select pg_catalog.set_config('statement_timeout', $1, true), pg_catalog.set_config('lock_timeout', $2, true)
