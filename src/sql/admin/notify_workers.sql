-- Wakes workers for jobs that can run now: what was not added announces nothing by itself.
--   $1 how many
select pg_catalog.pg_notify(
  'jobs:insert',
  pg_catalog.json_build_object('r', pg_catalog.random(), 'count', $1)::pg_catalog.text)
