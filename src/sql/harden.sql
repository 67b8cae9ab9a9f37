-- Makes every earlier commit of this session durable: a transaction of its own that waits for the disk.
select set_config('synchronous_commit', 'on', true), txid_current()
