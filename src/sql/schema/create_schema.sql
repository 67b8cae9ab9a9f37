-- Makes the schema. Without `if not exists`, which asks for the right to create one even if it exists.
create schema :GRAPHILE_WORKER_SCHEMA
