//! Runs every code block of the guide. The rules below generate `guide_blocks.rs` from
//! `docs/deployment-guide.async.md`, and a test generates it again and compares.
//! This file has the setup of each block (tasks, database) and the checks afterwards.

use crate::harness::{Running, SOON, Started, TestDb, eventually, log_lines};
use graphile_worker::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[rustfmt::skip]
#[path = "guide_blocks.rs"]
mod blocks;

const GUIDE: &str = include_str!("../../docs/deployment-guide.async.md");

/// Rewrites from the async crate to this one, after `.await` is removed. Code that no rule covers does not compile, or
/// contains a word of `FOREIGN`.
const RULES: [(&str, &str); 7] = [
    ("#[tokio::main]\n", ""),
    ("async fn", "fn"),
    ("async |", "|"),
    ("async move {", "{"),
    ("sqlx::postgres::PgPoolOptions::new()", "r2d2::Pool::builder()"),
    (".max_connections(", ".max_size("),
    (
        ".connect(&std::env::var(\"DATABASE_URL\")?)",
        ".build(r2d2_postgres::PostgresConnectionManager::new(\
         std::env::var(\"DATABASE_URL\")?.parse()?, postgres::NoTls))",
    ),
];

/// Words that must not remain after the translation.
const FOREIGN: [&str; 5] = ["async", "await", "tokio", "sqlx", "futures"];

/// The guide's line, the test that runs the block at that line, and the effect that the test checks.
const BLOCKS: [(usize, &str, &str); 17] = [
    (18, "a_url_is_enough", "the schema is installed, the job ran"),
    (29, "a_pool_that_is_lent_is_used", "the handler's session is one of the pool's"),
    (50, "commands_of_the_guide", "the schema is there"),
    (61, "eight_jobs_run_at_once", "8 of 12 jobs run, on at most 20 sessions"),
    (89, "due_jobs_are_found_twice_a_second", "jobs due after their notification start at the next poll of 500 ms"),
    (102, "the_program_runs_until_a_signal", "the job ran; SIGTERM ends the process with success"),
    (123, "a_forbidden_flag_leaves_its_jobs", "the flagged job is left, the other ran"),
    (145, "a_stop_waits_for_the_grace_period", "a job of longer than the default of 5 s is waited for"),
    (158, "a_signal_of_the_callers_stops_the_worker", "run() returns, the running job done"),
    (178, "recovery_is_on", "the worker beats, and has a thread that sweeps"),
    (197, "commands_of_the_guide", "both answer success"),
    (209, "a_typed_entry_is_known", "the entry stands in _private_known_crontabs"),
    (225, "a_text_entry_is_known", "the entry stands in _private_known_crontabs"),
    (246, "a_local_queue_holds_its_size", "with one thread's job running, more are held than any estimate would"),
    (282, "a_plugin_is_called", "as the next"),
    (347, "a_plugin_is_called", "start, completion, failure and end are logged by the hooks"),
    (362, "commands_of_the_guide", "all answer success"),
];

/// A block: its line, its language, its text.
fn blocks_of(guide: &str) -> Vec<(usize, String, String)> {
    let mut blocks: Vec<(usize, String, String)> = Vec::new();
    let mut inside = false;
    // The note that this repository adds on top does not count.
    for (line, text) in guide.lines().skip(1).enumerate() {
        match text.strip_prefix("```") {
            Some(_) if inside => inside = false,
            Some(language) => {
                inside = true;
                blocks.push((line + 1, language.to_owned(), String::new()));
            }
            None if inside => blocks.last_mut().expect("a block has begun").2.push_str(&format!("{text}\n")),
            None => {}
        }
    }
    assert!(!inside, "the last block is not closed");
    blocks
}

/// A block, translated to blocking code.
fn translate(line: usize, block: &str, used: &mut BTreeSet<&str>) -> String {
    // An await may be on a line of its own.
    let mut text = block.split(".await").map(str::trim_end).collect::<Vec<_>>().concat() + "\n";
    for (from, to) in RULES {
        if text.contains(from) {
            used.insert(from);
            text = text.replace(from, to);
        }
    }
    for word in FOREIGN {
        assert!(!text.contains(word), "line {line} of the guide: no rule translates {word:?} in\n{text}");
    }
    text
}

/// The generated file with all Rust blocks.
fn translated(guide: &str) -> String {
    let mut used = BTreeSet::new();
    let mut file = String::from(
        "// Made of docs/deployment-guide.async.md by the rules of guide.rs; do not edit.\n\
         // A number is a line of the guide.\n\
         #![allow(unused_variables)]\n\n\
         use super::{SendDailyReport, SendEmail, on_shutdown};\n\
         type Built = Result<graphile_worker::Worker, Box<dyn std::error::Error>>;\n",
    );
    for (line, language, block) in blocks_of(guide) {
        match language.as_str() {
            "bash" => continue,
            "rust,ignore" => {}
            _ => panic!("line {line} of the guide: no test runs {language:?}"),
        }
        let text = translate(line, &block, &mut used);
        if text.contains("let worker = ") && !text.contains("fn main()") {
            let _ = write!(
                file,
                "\n// {line}\npub(super) fn line_{line}(database_url: String) -> Built {{\n{text}Ok(worker)\n}}\n"
            );
        } else {
            let _ = write!(file, "\n// {line}\n{text}");
        }
    }
    for (from, _) in RULES {
        assert!(used.contains(from), "no block needs the rule for {from:?}");
    }
    file + "\npub(super) fn program() -> Result<(), Box<dyn std::error::Error>> {\n    main()\n}\n"
}

#[test]
fn guide_blocks_match_the_guide() {
    let expected = translated(GUIDE);
    if include_str!("guide_blocks.rs") != expected {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide_blocks.rs");
        std::fs::write(&path, expected).unwrap();
        panic!("the guide or the rules changed: copy {} to tests/it, and review the difference", path.display());
    }
}

#[test]
#[should_panic(expected = "no rule translates \"tokio\"")]
fn code_that_no_rule_translates_is_reported() {
    translate(1, "tokio::spawn(worker.run());\n", &mut BTreeSet::new());
}

#[test]
fn every_block_has_a_test_and_a_line_in_the_table() {
    let listed = BLOCKS.iter();
    let found = blocks_of(GUIDE);
    assert_eq!(found.iter().map(|b| b.0).collect::<Vec<_>>(), listed.clone().map(|b| b.0).collect::<Vec<_>>());
    let mut table = String::from(
        "# The guide's code blocks\n\n\
         Each block of `deployment-guide.async.md`, by its line there (the note on top not counted), and the test of\n\
         `tests/it/guide.rs` that runs it. A test keeps this table true.\n\n\
         | Line | Begins with | Test | What is looked at |\n|---|---|---|---|\n",
    );
    for ((line, test, effect), (_, _, text)) in listed.zip(found) {
        assert!(include_str!("guide.rs").contains(&format!("fn {test}(")), "{test} does not exist");
        let first = text.lines().next().unwrap_or_default();
        let _ = writeln!(table, "| {line} | `{first}` | `{test}` | {effect} |");
    }
    if include_str!("../../docs/guide-blocks.md") != table {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guide-blocks.md");
        std::fs::write(&path, table).unwrap();
        panic!("the table is out of date: copy {} to docs", path.display());
    }
}

/// Records that it ran and on which session, then waits while `public.waiting` has its recipient.
#[derive(Serialize, Deserialize)]
struct SendEmail {
    to: String,
}

impl TaskHandler for SendEmail {
    const IDENTIFIER: &'static str = "send_email";

    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        let mut connection = ctx.connection()?;
        let note = "insert into public.sent values ($1, current_setting('application_name'))";
        connection.execute(note, &[&self.to])?;
        drop(connection);
        let waiting = "select exists (select from public.waiting where name = $1)";
        let start = Instant::now();
        while ctx.connection()?.query_one(waiting, &[&self.to])?.get(0) {
            if start.elapsed() > 3 * SOON {
                return Err("not released in time".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        match self.to.as_str() {
            "unknown" => Err("there is no such address".into()),
            _ => Ok::<(), Box<dyn std::error::Error + Send + Sync>>(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct SendDailyReport;

impl TaskHandler for SendDailyReport {
    const IDENTIFIER: &'static str = "send_daily_report";

    fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {}
}

/// The replacement of the guide's future: one signal, used by the one block that calls this function.
fn on_shutdown() -> ShutdownSignal {
    static SIGNAL: std::sync::OnceLock<ShutdownSignal> = std::sync::OnceLock::new();
    SIGNAL.get_or_init(ShutdownSignal::new).clone()
}

/// A database with the tables in which handlers record what they did.
fn prepared() -> TestDb {
    let db = TestDb::new();
    db.execute("create table public.sent (name text, session text); create table public.waiting (name text)");
    db
}

fn send(db: &TestDb, to: &str, more: &str) {
    db.add(&format!("'send_email', '{{\"to\": \"{to}\"}}'{more}"));
}

fn sent(db: &TestDb) -> Vec<String> {
    db.all("select name from public.sent order by name")
}

fn let_go(db: &TestDb) {
    db.execute("delete from public.waiting");
}

/// Runs a block that reads DATABASE_URL in a separate process.
fn process(block: &str, url: &str) -> Command {
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", "guide::a_block_that_reads_the_environment", "--ignored", "--nocapture"]);
    process.env("GUIDE_BLOCK", block).env("DATABASE_URL", url).stdout(Stdio::null());
    process
}

fn start(block: &str, db: &TestDb) -> Started {
    Started::new(&mut process(block, &db.url()))
}

/// Stops the process with a signal and returns whether it ended with success.
fn terminate(mut process: Started) -> bool {
    process.signal("TERM");
    process.status().success()
}

#[test]
#[ignore = "a part of other tests, which start it as a process"]
fn a_block_that_reads_the_environment() {
    match std::env::var("GUIDE_BLOCK").as_deref() {
        Ok("18") => blocks::line_18(String::new()).unwrap().run_once().unwrap(),
        Ok("29") => blocks::line_29(String::new()).unwrap().run_once().unwrap(),
        Ok("178") => blocks::line_178(std::env::var("DATABASE_URL").unwrap()).unwrap().run().unwrap(),
        Ok("102") => blocks::program().unwrap(),
        _ => {}
    }
}

#[test]
fn a_url_is_enough() {
    let db = prepared();
    send(&db, "ada", "");
    assert!(process("18", &db.url()).status().unwrap().success());
    assert_eq!((sent(&db), db.jobs()), (vec!["ada".to_owned()], 0));
    db.execute("drop schema graphile_worker cascade");
    assert!(process("18", &db.url()).status().unwrap().success());
    assert_eq!(db.jobs(), 0, "the schema is back");
}

#[test]
fn a_pool_that_is_lent_is_used() {
    let db = prepared();
    send(&db, "ada", "");
    let url = db.url();
    let separator = if url.contains('?') { '&' } else { '?' };
    assert!(process("29", &format!("{url}{separator}application_name=lent")).status().unwrap().success());
    assert_eq!(db.all::<String>("select session from public.sent"), ["lent"]);
}

#[test]
fn eight_jobs_run_at_once() {
    let db = prepared();
    db.execute("insert into public.waiting values ('ada')");
    (0..12).for_each(|_| send(&db, "ada", ""));
    let running = run(blocks::line_61(db.url()));
    eventually(SOON, || sent(&db).len() == 8);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!((sent(&db).len(), running.worker.stats().running), (8, 8));
    let sessions: i64 = db.one(
        "select count(*) from pg_stat_activity where datname = current_database() and application_name <> 'harness'",
    );
    assert!((9..=20).contains(&sessions), "{sessions}");
    let_go(&db);
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn due_jobs_are_found_twice_a_second() {
    let db = prepared();
    let running = run(blocks::line_89(db.url()));
    eventually(SOON, || !db.backends("listen").is_empty());
    let start = Instant::now();
    for round in 1..=5 {
        // The notification is sent before the job is due, so only a poll finds it, half a second after the last.
        send(&db, "ada", ", run_at => now() + interval '50 ms'");
        eventually(SOON, || sent(&db).len() == round);
    }
    assert!(start.elapsed() < Duration::from_millis(3700), "{:?}", start.elapsed());
    drop(running);
}

#[test]
fn the_program_runs_until_a_signal() {
    let db = prepared();
    send(&db, "ada", "");
    let mut program = start("102", &db);
    eventually(SOON, || sent(&db) == ["ada"] && db.jobs() == 0);
    assert!(program.0.try_wait().unwrap().is_none(), "the program goes on");
    assert!(terminate(program));
}

#[test]
fn a_forbidden_flag_leaves_its_jobs() {
    let db = prepared();
    send(&db, "big", ", flags => array['high_memory']");
    send(&db, "ada", "");
    blocks::line_123(db.url()).unwrap().run_once().unwrap();
    assert_eq!((sent(&db), db.jobs()), (vec!["ada".to_owned()], 1));
}

#[test]
fn a_stop_waits_for_the_grace_period() {
    let db = prepared();
    db.execute("insert into public.waiting values ('ada')");
    send(&db, "ada", "");
    let running = run(blocks::line_145(db.url()));
    eventually(SOON, || sent(&db) == ["ada"]);
    running.worker.request_shutdown();
    // Longer than the default of five seconds.
    std::thread::sleep(Duration::from_millis(6500));
    assert_eq!(db.locks(), 1, "the job still runs");
    let_go(&db);
    running.stop().0.unwrap();
    assert_eq!(db.jobs(), 0);
}

#[test]
fn a_signal_of_the_callers_stops_the_worker() {
    let db = prepared();
    db.execute("insert into public.waiting values ('ada')");
    send(&db, "ada", "");
    let worker = blocks::line_158(db.url()).unwrap();
    std::thread::scope(|scope| {
        let run = scope.spawn(|| worker.run());
        eventually(SOON, || sent(&db) == ["ada"]);
        on_shutdown().trigger();
        let_go(&db);
        run.join().unwrap().unwrap();
    });
    assert_eq!(db.jobs(), 0, "the running job was completed");
}

#[test]
fn recovery_is_on() {
    let db = prepared();
    let worker = start("178", &db);
    let beats = || db.utils().list_active_workers(Duration::from_secs(300)).unwrap().len() == 1;
    let threads = || std::fs::read_dir(format!("/proc/{}/task", worker.0.id())).unwrap().flatten();
    let name = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
    let sweeps = || threads().any(|thread| name(thread).trim_end() == "gw-recovery");
    eventually(SOON, || beats() && sweeps());
    assert!(terminate(worker));
}

#[track_caller]
fn enters_its_crontab(db: &TestDb, worker: Result<Worker, Box<dyn std::error::Error>>) {
    let _running = run(worker);
    let known = "select identifier from graphile_worker._private_known_crontabs";
    eventually(SOON, || db.all::<String>(known) == ["send_daily_report"]);
}

#[test]
fn a_typed_entry_is_known() {
    let db = prepared();
    enters_its_crontab(&db, blocks::line_209(db.url()));
}

#[test]
fn a_text_entry_is_known() {
    let db = prepared();
    enters_its_crontab(&db, blocks::line_225(db.url()));
}

#[test]
fn a_local_queue_holds_its_size() {
    let db = prepared();
    db.execute("insert into public.waiting values ('ada')");
    (0..250).for_each(|_| send(&db, "ada", ""));
    let running = run(blocks::line_246(db.url()));
    eventually(SOON, || running.worker.stats().held >= 90);
    assert!(running.worker.stats().held <= 200, "size times queue count");
    let_go(&db);
    eventually(SOON, || db.jobs() == 0);
}

#[test]
fn a_plugin_is_called() {
    drop(log_lines());
    let db = prepared();
    send(&db, "ada", "");
    send(&db, "unknown", "");
    let running = run(blocks::line_347(db.url()));
    eventually(SOON, || db.jobs() == 1 && db.locks() == 0);
    let id = running.worker.worker_id().unwrap();
    running.stop().0.unwrap();
    // Only the plugin's lines have their fields within the text.
    let said = |parts: &[&str]| log_lines().iter().any(|line| parts.iter().all(|part| line.text.contains(part)));
    assert!(said(&["worker started", &id]));
    assert!(said(&["job completed", "duration_ms="]));
    assert!(said(&["job failed", "error=", "there is no such address", "will_retry=true"]));
    assert!(said(&["worker shutting down", &id, "reason=Graceful"]));
}

#[test]
fn commands_of_the_guide() {
    let program = Path::new(env!("CARGO_BIN_EXE_graphile-worker"));
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let db = prepared();
    db.execute("drop schema graphile_worker cascade");
    for (line, _, block) in blocks_of(GUIDE).into_iter().filter(|(_, language, _)| language == "bash") {
        for command in block.lines() {
            let mut sh = Command::new("sh");
            let output = sh.args(["-c", command]).env("PATH", &path).env("DATABASE_URL", db.url()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "line {line} of the guide: {command}\n{said}");
            // The first command installs the schema.
            assert_eq!(db.jobs(), 0, "{command}");
        }
    }
}

/// Starts the worker that a block has built.
#[track_caller]
fn run(worker: Result<Worker, Box<dyn std::error::Error>>) -> Running {
    Running::of(worker.expect("the block builds a worker"))
}
