-- Which of our extras are in place.
select id from :GRAPHILE_WORKER_SCHEMA._native_migrations
