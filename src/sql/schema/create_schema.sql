-- Creates the schema. Without `if not exists`, which needs the right to create a schema even if it exists.
create schema :GRAPHILE_WORKER_SCHEMA
