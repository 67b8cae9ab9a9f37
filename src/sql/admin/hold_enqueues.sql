-- Keeps jobs from being added until the transaction ends, and waits for enqueues under way. Every implementation of
-- add_job writes to the table of tasks first, and so holds a lock on it until its transaction ends. Claims and settling
-- do not touch that table, so workers go on.
lock table :GRAPHILE_WORKER_SCHEMA._private_tasks in share row exclusive mode
