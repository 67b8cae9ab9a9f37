-- Returns the isolation level: whether a repeated statement sees what other transactions committed meanwhile.
select pg_catalog.current_setting('transaction_isolation')
