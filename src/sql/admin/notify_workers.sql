-- Notifies workers of jobs that can run now. Only the functions that add or remove jobs notify by themselves.
--   $1 how many
select pg_catalog.pg_notify(
  'jobs:insert',
  pg_catalog.json_build_object('r', pg_catalog.random(), 'count', $1)::pg_catalog.text)
