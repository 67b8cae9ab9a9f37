-- What the server has counted until now: bytes of write-ahead log of the whole server; commits, and rows that updates
-- and deletes have left behind, of this database.
select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8,
       (select xact_commit::float8 from pg_stat_database where datname = current_database()),
       (select coalesce(sum(n_tup_upd + n_tup_del), 0)::float8 from pg_stat_user_tables)
