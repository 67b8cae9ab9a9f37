-- Limits the transaction's statements and its waits for locks, so that the server ends them by the time the caller
-- stops waiting.
--   $1 milliseconds for a statement  $2 milliseconds for a lock
select pg_catalog.set_config('statement_timeout', $1, true), pg_catalog.set_config('lock_timeout', $2, true)
