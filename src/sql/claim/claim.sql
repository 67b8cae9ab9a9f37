-- Claims up to $3 due jobs in the order of (priority, run_at). Of each named queue it claims the first job, and may take
-- along the jobs behind it.
-- A session claims from a free queue by locking the queue's row. All locks skip locked rows, so a claim waits for no
-- session.
--   $1 worker  $2 task ids  $3 limit  $4 forbidden flags  $5 accepted flags  $6 now
--   $7 window: how many entries of the main index are read for queued jobs, before the search goes from queue to queue
--      in the index _native_jobs_queue; 0 claims unqueued jobs only, null reads all entries
--   $8 ids of jobs to pass over: the database refused this worker's claim of them
--   $9 true: returns the ids that a claim would take, and writes nothing
--   $10 largest stored size of a payload that is returned with its job, in bytes. For a larger payload only the stored
--      size is returned, as `apart`, so that the reply is short whatever the payloads are.
-- `was_recovered` is true if last_error begins with the text that a sweep writes: the job may be the one that kills its
-- workers.
--   $11 $12 priorities in order, and for each the run_at from which it is read; jobs before that and jobs of other
--      priorities are not seen. But if any job of a queue is seen, the queue's first job is claimed, so that the queue
--      keeps its order. null sees all jobs. Must be null if $7 is null
--   $13 ids: of the jobs without a queue, only these are claimed, in this order
--   $14 the most jobs that are taken along of one queue  $15 and of all queues, beyond $3
--   $16 tasks whose jobs may be taken along
--   $17 ids: also looks for the first jobs of these queues
-- NULL in $4, $5, $6, $8, $11, $13, $17 switches that part off. `seconds` is how long the server searched.
-- The walk over the distinct priorities makes (priority, run_at <= now) an exact index range, so jobs of the future are
-- never read. `= any(array(...))` keeps every update on the primary key.
with recursive
clock as materialized (
  select coalesce($6::timestamptz, pg_catalog.now()) as now
),
-- The distinct priorities that unqueued jobs have, each with the run_at of its first job, one index descent each. While
-- an old snapshot keeps dead entries in the index, a descent reads those before the first job. So they are read once.
rung(priority, since) as (
  (select j.priority, j.run_at
     from :GRAPHILE_WORKER_SCHEMA._private_jobs j
    where j.is_available and j.job_queue_id is null
      and $11::smallint[] is null and $13::bigint[] is null
    order by j.priority, j.run_at
    limit 1)
  union all
  select n.priority, n.run_at
    from rung r
   cross join lateral (
     select j.priority, j.run_at
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available and j.job_queue_id is null and j.priority > r.priority
      order by j.priority, j.run_at
      limit 1) n
),
-- Unqueued jobs, locked as they are found. The outer limit ends the walk.
loose as materialized (
  select c.id, c.priority, c.run_at
    from (
      select * from rung
      union all
      select * from rows from (pg_catalog.unnest($11::smallint[]), pg_catalog.unnest($12::timestamptz[])) r
       where $13::bigint[] is null) r(priority, since)
   cross join lateral (
     select j.id, j.priority, j.run_at
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available and j.job_queue_id is null
        and j.priority = r.priority
        and j.run_at >= r.since
        and j.run_at <= (select now from clock)
        and j.task_id = any($2::int[])
        and (j.id = any($8::bigint[])) is not true
        and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
        and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true
      order by j.run_at
      limit $3::int
        for update skip locked) c
   limit $3::int
),
-- The jobs of $13 that are still there. A condition on is_available would let the plan read another index, whose
-- statistics may be those of an empty table.
listed as materialized (
  select c.id, c.priority, c.run_at
    from pg_catalog.unnest($13::bigint[]) l(id)
   cross join lateral (
     select j.id, j.priority, j.run_at
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.id = l.id
        and j.locked_at is null and j.attempts < j.max_attempts and j.job_queue_id is null
        and j.run_at <= (select now from clock)
        and j.task_id = any($2::int[])
        and (j.id = any($8::bigint[])) is not true
        and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
        and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true
        for update skip locked) c
   limit $3::int
),
-- The last job of a full claim. Queued jobs behind it cannot belong to the claim.
edge as materialized (
  select priority, run_at
    from loose
   order by priority, run_at
  offset $3::int - 1
   limit 1
),
step(priority, since) as (
  (select j.priority, j.run_at
     from :GRAPHILE_WORKER_SCHEMA._private_jobs j
    where j.is_available
      and $11::smallint[] is null
    order by j.priority, j.run_at
    limit 1)
  union all
  select n.priority, n.run_at
    from step s
   cross join lateral (
     select j.priority, j.run_at
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available and j.priority > s.priority
      order by j.priority, j.run_at
      limit 1) n
),
-- The first entries of the main index up to the edge, queued or not.
near as materialized (
  select c.*
    from (
      select * from step
      union all
      select * from rows from (pg_catalog.unnest($11::smallint[]), pg_catalog.unnest($12::timestamptz[]))) s(priority, since)
    left join edge e on true
   cross join lateral (
     select j.id, j.job_queue_id, j.priority, j.run_at, j.task_id
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available
        and j.priority = s.priority
        and j.run_at >= s.since
        and j.run_at <= case when s.priority = e.priority then e.run_at else (select now from clock) end
      order by j.run_at
      limit $7::int) c
   where (s.priority > e.priority) is not true
     and $7::int is distinct from 0
     and exists (select from :GRAPHILE_WORKER_SCHEMA._private_job_queues)
   limit $7::int
),
-- Of these, the first job of each free queue. The limit is above $3, because other sessions may lock some meanwhile.
front as materialized (
  select h.*
    from (
      select h.*
        from (
          select distinct on (n.job_queue_id) n.id, n.job_queue_id, n.priority, n.run_at
            from near n
           where n.job_queue_id is not null
             and n.task_id = any($2::int[])
             and (n.id = any($8::bigint[])) is not true
             and (coalesce(pg_catalog.cardinality($4::text[]), 0) + coalesce(pg_catalog.cardinality($5::text[]), 0) = 0
                  or exists (
                    select
                      from :GRAPHILE_WORKER_SCHEMA._private_jobs j
                     where j.id = n.id
                       and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
                       and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true))
           order by n.job_queue_id, n.priority, n.run_at) h
       order by h.priority, h.run_at
      offset 0) h
   cross join lateral (
     select
       from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
      where q.id = h.job_queue_id and q.is_available
     offset 0) q
   order by h.priority, h.run_at
   limit 3 * $3::int + 16
),
-- Only if all jobs are seen, the window is full and too few of its queues are free: goes from queue to queue in the index
-- _native_jobs_queue. `between` and the order by job_queue_id force the plan to that index: with an equality, the main
-- index has the order too.
line(job_queue_id) as (
  (select j.job_queue_id
     from :GRAPHILE_WORKER_SCHEMA._private_jobs j
    where j.is_available and j.job_queue_id is not null
    order by j.job_queue_id
    limit 1)
  union all
  select (select j.job_queue_id
            from :GRAPHILE_WORKER_SCHEMA._private_jobs j
           where j.is_available and j.job_queue_id is not null and j.job_queue_id > l.job_queue_id
           order by j.job_queue_id
           limit 1)
    from line l
   where l.job_queue_id is not null
),
-- Behind bounds, the first job of a queue may be before them, so the first jobs of the queues of `front` are read anew.
deep as materialized (
  select c.*
    from (
      select l.job_queue_id
        from line l
       where $7::int > 0
         and $11::smallint[] is null
         and (select pg_catalog.count(*) from near) >= $7::int
         and (select pg_catalog.count(*) from front) < $3::int
      union
      select f.job_queue_id
        from front f
       where $11::smallint[] is not null
      union
      select pg_catalog.unnest($17::int[])) s
   cross join lateral (
     select q.id
       from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
      where q.id = s.job_queue_id and q.is_available
     offset 0) q
   cross join lateral (
     select j.id, j.job_queue_id, j.priority, j.run_at
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available and j.job_queue_id is not null
        and j.job_queue_id between q.id and q.id
        and j.run_at <= (select now from clock)
        and j.task_id = any($2::int[])
        and (j.id = any($8::bigint[])) is not true
        and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
        and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true
      order by j.job_queue_id, j.priority, j.run_at
      limit 1) c
),
heads as materialized (
  select h.*
    from (
      select * from deep
      union all
      select * from front where not exists (select from deep)) h
    left join edge e on true
   where ((h.priority, h.run_at) > (e.priority, e.run_at)) is not true
   order by h.priority, h.run_at
),
-- Locks the queue's row first, then the job's, as Node does. Both skip locked rows, so neither waits. Another session may
-- have changed the job since it was found, so all conditions are checked again. For is_available, see `listed`.
queued as materialized (
  select k.id, h.job_queue_id, h.priority, h.run_at
    from heads h
   cross join lateral (
     select q.id
       from :GRAPHILE_WORKER_SCHEMA._private_job_queues q
      where q.id = h.job_queue_id and q.is_available
        for update skip locked) q
   cross join lateral (
     select j.id
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.id = h.id
        and j.locked_at is null and j.attempts < j.max_attempts and j.job_queue_id = q.id
        and j.run_at <= (select now from clock)
        and j.task_id = any($2::int[])
        and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
        and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true
        for update skip locked) k
   limit $3::int
),
pick as materialized (
  select id, job_queue_id, priority, run_at from queued
  union all
  select id, null::int, priority, run_at from loose
  union all
  select id, null::int, priority, run_at from listed
  order by priority, run_at
  limit $3::int
),
-- The first jobs of each picked queue, in their order. Reads them without locks.
line_up as materialized (
  select w.id, w.job_queue_id, w.priority, w.run_at, w.id = p.id as is_picked,
         w.task_id = any($16::int[]) and w.last_error is null as is_easy
    from (
      select p.id, p.job_queue_id, least($14::int, $15::int / pg_catalog.count(*) over ()) as room
        from pick p
       where $14::int > 0 and p.job_queue_id is not null) p
   cross join lateral (
     select j.id, j.job_queue_id, j.priority, j.run_at, j.task_id, j.last_error
       from :GRAPHILE_WORKER_SCHEMA._private_jobs j
      where j.is_available and j.job_queue_id is not null
        and j.job_queue_id between p.job_queue_id and p.job_queue_id
        and j.run_at <= (select now from clock)
        and j.task_id = any($2::int[])
        and (j.id = any($8::bigint[])) is not true
        and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
        and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true
      order by j.job_queue_id, j.priority, j.run_at
      limit p.room + 1) w
),
-- Locks all of these but the picked ones.
lockable as materialized (
  select j.id, j.job_queue_id
    from :GRAPHILE_WORKER_SCHEMA._private_jobs j
   where j.id = any(array(select l.id from line_up l where not l.is_picked))
     and j.locked_at is null and j.attempts < j.max_attempts and j.job_queue_id is not null
     and j.run_at <= (select now from clock)
     and j.task_id = any($16::int[])
     and j.last_error is null
     and (pg_catalog.cardinality($4::text[]) > 0 and j.flags ?| $4::text[]) is not true
     and (pg_catalog.cardinality($5::text[]) > 0 and (j.flags ?| $5::text[]) is not true) is not true
     for update skip locked
),
-- Of each queue, the jobs up to the first one that another session has locked, that may take long, or that was tried
-- before. A job that has killed its worker is therefore alone: a sweep then knows which job ran.
along as materialized (
  select a.id, a.priority, a.run_at
    from (
      select l.id, l.priority, l.run_at, l.is_picked,
             pg_catalog.bool_and(
               l.is_easy and (l.is_picked or (l.id, l.job_queue_id) in (select k.id, k.job_queue_id from lockable k)))
               over (partition by l.job_queue_id order by l.priority, l.run_at, l.id) as fits
        from line_up l) a
   where a.fits and not a.is_picked
),
hold as (
  update :GRAPHILE_WORKER_SCHEMA._private_job_queues q
     set locked_by = $1::text,
         locked_at = pg_catalog.now()
   where $9::boolean is not true
     and q.id = any(array(select p.job_queue_id from pick p where p.job_queue_id is not null))
),
taken as (
  update :GRAPHILE_WORKER_SCHEMA._private_jobs j
     set attempts = j.attempts + 1,
         locked_by = $1::text,
         locked_at = pg_catalog.now()
   where $9::boolean is not true
     and j.id = any(array(select p.id from pick p union all select a.id from along a))
  returning
    j.id, j.job_queue_id, j.task_id, j.attempts, j.max_attempts, j.priority, j.run_at,
    j.created_at, j.key, j.revision, j.flags::text as flags,
    case when pg_catalog.pg_column_size(j.payload) <= $10::int then j.payload end as payload,
    case when pg_catalog.pg_column_size(j.payload) > $10::int then pg_catalog.pg_column_size(j.payload) end as apart,
    pg_catalog.starts_with(j.last_error, 'recovered: ') as was_recovered
)
select t.*, (select extract(epoch from pg_catalog.clock_timestamp() - pg_catalog.statement_timestamp())::float8) as seconds
  from taken t
union all
select p.id, p.job_queue_id, null, null, null, p.priority, p.run_at, null, null, null, null, null, null, null, null
  from pick p
 where $9::boolean
 order by priority, run_at, id
