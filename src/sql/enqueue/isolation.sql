-- Whether a statement tried again sees what was committed meanwhile.
select pg_catalog.current_setting('transaction_isolation')
