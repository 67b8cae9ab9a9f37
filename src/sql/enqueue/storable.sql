-- Reads texts, and so fails with 22P05 if the database's encoding lacks one of their characters.
--   $1 texts
select pg_catalog.cardinality($1::pg_catalog.text[])
