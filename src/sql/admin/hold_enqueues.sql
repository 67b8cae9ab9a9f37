-- Keeps jobs from being added until the end of the transaction, and waits for those who are at it. Every
-- make of add_job writes to the table of tasks before anything else, and so holds a lock on it until its
-- transaction ends. Claims and settling do not touch that table: workers go on.
lock table :GRAPHILE_WORKER_SCHEMA._private_tasks in share row exclusive mode
