-- Makes every earlier commit of this session durable, by a transaction of its own that waits for the disk.
select pg_catalog.set_config('synchronous_commit', 'on', true), pg_catalog.txid_current()
