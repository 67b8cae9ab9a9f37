//! Query plans: claims, adds and removals use indexes only, with any number of stuck, future or failed jobs.

use crate::harness::TestDb;

const SETTINGS: &str = "set plan_cache_mode = force_generic_plan; set jit = off; set enable_seqscan = off; \
     set enable_bitmapscan = off; set enable_hashjoin = off; set enable_mergejoin = off";

pub fn plan_of(db: &TestDb, sql: &str, arguments: &str) -> String {
    let sql = sql.replace(":GRAPHILE_WORKER_SCHEMA", "graphile_worker");
    let mut client = db.client();
    client.batch_execute(SETTINGS).unwrap();
    client.batch_execute(&format!("prepare statement as {sql}")).unwrap();
    let rows =
        client.query(&format!("explain (analyze, buffers, timing off) execute statement({arguments})"), &[]).unwrap();
    rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// The text of the claim, with the schema in place.
pub fn claim_statement() -> String {
    include_str!("../../src/sql/claim/claim.sql").replace(":GRAPHILE_WORKER_SCHEMA", "graphile_worker")
}

/// How many pages a statement with this plan read.
pub fn buffers(plan: &str) -> u64 {
    let line = plan.lines().find(|line| line.contains("Buffers:")).expect(plan);
    let pages = |of: &str| Some(line.split_once(of)?.1.split_whitespace().next()?.parse::<u64>().unwrap());
    pages("hit=").unwrap_or(0) + pages("read=").unwrap_or(0)
}

#[test]
fn a_claim_reads_by_index_behind_stuck_future_and_failed_jobs() {
    let db = TestDb::new();
    db.add_many(3000, "'t', null, 'stuck' || n % 2, now() - interval '1 day', null, null, null, null");
    db.execute("update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'another'");
    db.add_many(3000, "'t', null, null, now() + interval '1 day', null, null, -1, null");
    db.add_many(1000, "'t', null, null, null, null, null, null, null");
    db.add_many(50, "'t', null, 'free' || n, null, null, null, null, null");
    db.execute(
        "insert into graphile_worker._private_jobs (task_id, attempts, max_attempts) select 1, 1, 1 from generate_series(1, 3000)",
    );
    let plan = plan_of(
        &db,
        include_str!("../../src/sql/claim/claim.sql"),
        "'w', array[1], 100, null, null, null, 132, null, false, 2000, null, null, null, 3, 200, array[1], null",
    );
    for (table, wrong) in [("_private_jobs", "Seq Scan on _private_jobs"), ("any", "Hash Join"), ("any", "Merge Join")]
    {
        assert!(!plan.contains(wrong), "{table}: {wrong} in\n{plan}");
    }
    // The 3,000 stuck and 3,000 future jobs come first in the order; the window is 132.
    let read: f64 = plan
        .lines()
        .filter(|line| line.contains("Index") && line.contains("Scan") && line.contains("_private_jobs"))
        .filter_map(|line| {
            let actual = line.split("actual rows=").nth(1)?;
            let rows: f64 = actual.split_whitespace().next()?.parse().ok()?;
            let loops: f64 = actual.split("loops=").nth(1)?.trim_end_matches(')').parse().ok()?;
            Some(rows * loops)
        })
        .sum();
    assert!(read < 1500.0, "{read} index entries read for 100 jobs:\n{plan}");
    assert_eq!(db.one::<i64>("select count(*) from graphile_worker._private_jobs where locked_by = 'w'"), 100);
}

#[test]
fn a_claim_takes_the_first_jobs_with_and_without_queue() {
    let db = TestDb::new();
    db.execute(
        "select graphile_worker.add_job('t', to_json(n), case when n % 2 = 0 then 'q' || n end,
                now() - interval '1 day' + n * interval '1 second', priority => (n > 30)::int)
           from generate_series(1, 100) n",
    );
    let mut client = db.client();
    let sql = claim_statement();
    client.batch_execute(&format!("{SETTINGS}; prepare claim as {sql}")).unwrap();
    let mut next = 1;
    for (limit, window) in [(7, 39), (10, 42), (20, 0), (20, 52)] {
        // With a window of 0 the claim takes only jobs without a queue.
        let claim = format!(
            "execute claim('w', array[1], {limit}, null, null, null, {window}, null, false, 2000, null, null, null, 0, 0, null, null)"
        );
        let rows = client.query(&claim, &[]).unwrap();
        let taken: Vec<i32> =
            rows.iter().map(|row| row.get::<_, serde_json::Value>("payload").as_i64().unwrap() as i32).collect();
        if window == 0 {
            assert_eq!(taken, (next..=100).filter(|n| n % 2 == 1).take(20).collect::<Vec<_>>());
            db.execute(
                "update graphile_worker._private_jobs set locked_at = null, locked_by = null, attempts = 0
                  where (payload #>> '{}')::int >= 18",
            );
        } else {
            assert_eq!(taken, (next..next + limit).collect::<Vec<_>>());
            next += limit;
        }
    }
}

#[test]
fn settling_finds_its_rows_by_primary_key() {
    let db = TestDb::new();
    db.add_many(2000, "'t', null, null, null, null, null, null, null");
    let settle = [
        (
            include_str!("../../src/sql/settle/complete.sql"),
            "'w', array[1, 2]::bigint[], array[1, 1]::smallint[], array[false, false], array[true, true]",
        ),
        (
            include_str!("../../src/sql/settle/fail.sql"),
            "'w', array[1]::bigint[], array[1]::smallint[], array[false], array[true], array['no'], array[null]::float8[], array[false], array[null]::text[]",
        ),
        (
            include_str!("../../src/sql/settle/give_back.sql"),
            "'w', array[1]::bigint[], array[1]::smallint[], array[false], array[true], array[null]::float8[]",
        ),
    ];
    for (sql, arguments) in settle {
        let plan = plan_of(&db, sql, arguments);
        assert!(plan.contains("jobs_pkey1") && !plan.contains("Seq Scan on _private_jobs"), "{plan}");
    }
}

#[test]
fn a_session_that_began_with_an_empty_table_uses_indexes_later() {
    let db = TestDb::new();
    let mut client = db.client();
    let add = "select from graphile_worker.add_job('t', job_key => $1)";
    let remove = "select from graphile_worker.remove_job($1)";
    // PL/pgSQL keeps a plan from the sixth execution on.
    for _ in 0..8 {
        for call in [add, remove] {
            client.execute(call, &[&"first"]).unwrap();
        }
    }
    db.add_many(5000, "'t', null, null, null, null, n::text, null, null");
    let mut transaction = client.transaction().unwrap();
    for call in [add, remove] {
        transaction.execute(call, &[&"7"]).unwrap();
    }
    let scans = "select seq_scan from pg_stat_xact_user_tables where relname = '_private_jobs'";
    let whole_table: i64 = transaction.query_one(scans, &[]).unwrap().get(0);
    assert_eq!(whole_table, 0, "reads of the whole table");
}

#[test]
fn a_claim_that_is_planned_for_an_empty_table_finds_chosen_jobs_by_their_ids() {
    let db = TestDb::new();
    let mut client = db.client();
    client.batch_execute("vacuum analyze graphile_worker._private_jobs").unwrap();
    let sql = claim_statement();
    client.batch_execute(&format!("{SETTINGS}; prepare claim as {sql}")).unwrap();
    let explain = "explain execute claim('w', array[1], 1, null, null, null, 33, null, false, 2000, null, null, null, 3, 200, array[1], null)";
    let plan: Vec<String> = client.query(explain, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    for part in ["listed", "queued"] {
        let start = plan.iter().position(|line| line.trim() == format!("CTE {part}")).expect(part);
        let lines =
            plan[start + 1..].iter().take_while(|line| !line.trim().starts_with("CTE ") || line.contains("Scan"));
        let jobs: Vec<_> = lines.filter(|line| line.contains("on _private_jobs ")).collect();
        assert!(!jobs.is_empty() && jobs.iter().all(|line| line.contains("jobs_pkey1")), "{part}: {jobs:?}");
    }
}
