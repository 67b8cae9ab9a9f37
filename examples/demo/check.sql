-- Computes the expected results from the documents, with PostgreSQL's own functions, and compares them.
-- Returns one row for each result that differs, and no row if all agree.
with truth as (
  select d.id, d.folder, length(d.body) as characters,
         (select count(*) from regexp_split_to_table(d.body, '\s+') word where word <> '') as words,
         length(d.body) - length(replace(d.body, E'\n', '')) as lines,
         (select max(length(line)) from unnest(string_to_array(d.body, E'\n')) line) as longest
    from documents d
),
folders as (
  select folder, count(*) as documents, sum(words)::bigint as words, sum(characters)::bigint as characters
    from truth group by folder
)
select 'count of document ' || coalesce(t.id, c.document), (t.words, t.lines, t.longest)::text, (c.words, c.lines, c.longest)::text
  from truth t full join counts c on c.document = t.id
 where (t.words, t.lines, t.longest) is distinct from (c.words, c.lines, c.longest)
union all
select 'total of folder ' || coalesce(f.folder, t.folder), (f.documents, f.words)::text, (t.documents, t.words)::text
  from folders f full join totals t on t.folder = f.folder
 where (f.documents, f.words) is distinct from (t.documents, t.words)
union all
select 'summary of folder ' || coalesce(f.folder, s.folder), (f.documents, f.characters)::text, (s.documents, s.characters)::text
  from folders f full join summaries s on s.folder = f.folder
 where (f.documents, f.characters) is distinct from (s.documents, s.characters)
