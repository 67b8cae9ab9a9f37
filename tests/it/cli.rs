//! The program `graphile-worker`: its commands, what they print, and how they end.

use crate::harness::{Role, SOON, Started, TestDb, eventually};
use postgres::{Client, NoTls};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};

pub fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_graphile-worker"));
    // The variables of this machine must not affect the test.
    program.env_remove("DATABASE_URL").env_remove("GRAPHILE_WORKER_SCHEMA").stdin(Stdio::null());
    for name in ["PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"] {
        program.env_remove(name);
    }
    program
}

pub fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("starting the program")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn migrate_installs_the_schema_and_may_be_repeated() {
    let db = TestDb::new();
    for _ in 0..2 {
        let output = run(&["migrate", "--database-url", &db.url(), "--schema", "jobs here"]);
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output), "schema jobs here is ready\n");
    }
    assert_eq!(db.one::<i64>("select (\"jobs here\".add_job('t')).id"), 1);
}

#[test]
fn migrate_reads_the_environment_and_options_on_either_side() {
    let db = TestDb::new();
    let output = program()
        .env("DATABASE_URL", db.url())
        .env("GRAPHILE_WORKER_SCHEMA", "by_environment")
        .arg("migrate")
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "schema by_environment is ready\n", "{}", stderr(&output));
    let output = run(&["--schema", "before", "--database-url", &db.url(), "migrate"]);
    assert_eq!(stdout(&output), "schema before is ready\n", "{}", stderr(&output));
}

#[test]
fn a_misspelled_variable_is_refused_and_a_foreign_one_is_not() {
    let db = TestDb::new();
    let with = |name: &str| program().env("DATABASE_URL", db.url()).env(name, "jobs").arg("stats").output().unwrap();
    for name in ["GRAPHILE_WORKER_SHEMA", "GRAPHILE_WORKERS_SCHEMA", "GRAPHILE_WORKER_schema"] {
        let output = with(name);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(
            stderr(&output)
                .contains(&format!("unknown environment variable {name}; did you mean GRAPHILE_WORKER_SCHEMA?"))
        );
    }
    for name in ["GRAPHILE_WORKER_CONCURRENCY", "GRAPHILE_WORKER_SERVICE_HOST", "GRAPHILE_WORKER_JOB_ID"] {
        let output = with(name);
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), String::new()), "{name}");
    }
}

#[test]
fn every_command_ends_with_status_4_on_an_unusable_schema() {
    let db = TestDb::new();
    let id = db.add("'t', queue_name => 'q', job_key => 'k'").to_string();
    let usage = "grant usage on schema graphile_worker to ROLE;
                 grant select, insert, update, delete on all tables in schema graphile_worker to ROLE";
    let role = Role::new(&db, usage);
    let commands: [&[&str]; 14] = [
        &["list"],
        &["show", &id],
        &["stats"],
        &["queues"],
        &["workers"],
        &["complete", &id],
        &["fail", &id],
        &["reschedule", &id, "--now"],
        &["remove", "k"],
        &["cleanup"],
        &["cleanup", "--dry-run"],
        &["force-unlock", "w"],
        &["sweep-stale-workers"],
        &["migrate"],
    ];
    let refused = |url: &str, arguments: &[&str], words: &str| {
        let output = run(&[arguments, &["--database-url", url]].concat());
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output)), (Some(4), String::new()), "{arguments:?}: {text}");
        assert!(text.contains(words) && !text.contains("right --schema"), "{arguments:?}: {text}");
    };
    for arguments in commands {
        refused(&role.url(), arguments, "hides all jobs from role");
    }
    db.execute("insert into graphile_worker.migrations (id, breaking) values (999, true)");
    for arguments in commands.into_iter().chain([["add", "t"].as_slice()]) {
        refused(&db.url(), arguments, "breaking migration 999 of a newer worker");
    }
    assert_eq!(db.jobs(), 1);
}

#[test]
fn an_unreachable_database_is_reported_without_the_password() {
    for (url, code, word) in [
        // No process listens on port 1.
        ("postgres://ada:hunter2@127.0.0.1:1/app", 3, "127.0.0.1"),
        ("postgres://ada:hunter2@127.0.0.1:port/app", 2, "port"),
        ("host=127.0.0.1 password=hunter2 sslmode=sometimes", 2, "sslmode"),
    ] {
        let output = run(&["migrate", "--database-url", url]);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{url}: {text}");
        assert!(text.starts_with("graphile-worker: ") && text.contains(word), "{url}: {text}");
        assert!(!text.contains("hunter2"), "{url}: {text}");
        assert_eq!(stdout(&output), "");
    }
}

#[test]
fn missing_or_unknown_arguments_are_usage_errors() {
    for (arguments, word) in [
        (&["migrate"][..], "--database-url"),
        (&["migrate", "--schema", "pg_mine", "--database-url", "postgres://127.0.0.1:1"], "pg_mine"),
        (&["dig"], "dig"),
        (&[], "Usage"),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(word), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn help_and_version_succeed_and_show_no_secret() {
    let output = program().env("DATABASE_URL", "postgres://ada:hunter2@h/app").arg("--help").output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success() && text.contains("migrate") && text.contains("dev"), "{text}");
    assert!(text.contains("DATABASE_URL") && !text.contains("hunter2"), "{text}");
    assert_eq!(stdout(&run(&["--version"])), format!("graphile-worker {}\n", env!("CARGO_PKG_VERSION")));
}

/// The program on this database.
pub fn on(db: &TestDb, arguments: &[&str]) -> Output {
    program().env("DATABASE_URL", db.url()).args(arguments).output().expect("starting the program")
}

/// The program's output, if it succeeds and writes nothing to stderr.
#[track_caller]
pub fn said(output: &Output) -> String {
    assert_eq!((output.status.code(), &*stderr(output)), (Some(0), ""), "{}", stdout(output));
    stdout(output)
}

#[test]
fn wrong_input_is_named_and_changes_nothing() {
    let db = TestDb::new();
    let id = db.add("'t', job_key => 'k'").to_string();
    let before = db.one::<String>("select jsonb_agg(j)::text from graphile_worker._private_jobs j");
    let key = "k".repeat(513);
    for (arguments, status, words) in [
        (&["add"][..], 2, "<IDENTIFIER>"),
        (&["add", ""], 2, "task name: has 0 characters, allowed are 1 to 128"),
        (
            &["add", "t", "--payload", "{\"secret\": }"],
            2,
            "the payload is not JSON: expected value at line 1 column 12",
        ),
        (&["add", "t", "--payload", "1 2"], 2, "trailing characters"),
        (&["add", "t", "--payload", "1", "--payload-file", "x"], 2, "cannot be used with"),
        (&["add", "t", "--payload-file", "/nowhere/at all"], 2, "--payload-file /nowhere/at all: No such file"),
        (&["add", "t", "--run-at", "tomorrow"], 2, "write 2031-01-02T03:04:05Z, with its zone, or now"),
        (&["add", "t", "--run-at", "2026-01-02"], 2, "'2026-01-02' for '--run-at <TIME>'"),
        (&["add", "t", "--max-attempts", "0"], 2, "max_attempts: 0 is outside 1 to 32767"),
        (&["add", "t", "--priority", "40000"], 2, "priority: 40000 is outside -32768 to 32767"),
        (&["add", "t", "--priority", "high"], 2, "'high' for '--priority <NUMBER>'"),
        (&["add", "t", "--key", &key], 2, "job_key: has 513 characters"),
        (&["add", "t", "--job-key-mode", "replace"], 2, "--key <KEY>"),
        (
            &["add", "t", "--key", "k", "--job-key-mode", "unsafe_dedupe"],
            2,
            "[possible values: replace, preserve-run-at, unsafe-dedupe]",
        ),
        (&["list", "--state", "done"], 2, "[possible values: all, ready, scheduled, locked, failed]"),
        (&["list", "--limit", "-1"], 2, "limit: -1 is negative"),
        (&["show", "first"], 2, "'first' for '<ID>'"),
        (&["show", "4711"], 5, "there is no job 4711"),
        (&["complete"], 2, "<IDS>..."),
        (&["complete", "4711"], 5, "not found, or held by a worker: 4711"),
        (&["fail", &id, "--reason", &"x".repeat(65_537)], 2, "reason: has 65537 characters"),
        (
            &["reschedule", &id],
            2,
            "<--now|--run-at <TIME>|--priority <NUMBER>|--attempts <NUMBER>|--max-attempts <NUMBER>>",
        ),
        (&["reschedule", &id, "--now", "--run-at", "now"], 2, "cannot be used with"),
        (&["reschedule", &id, "--attempts", "-1"], 2, "attempts: -1 is outside 0 to 32767"),
        (&["remove", ""], 2, "job_key: has 0 characters"),
        (&["remove", "none"], 5, "no job has the key \"none\""),
        (
            &["cleanup", "everything"],
            2,
            "[possible values: delete-permanently-failed-jobs, gc-task-identifiers, gc-job-queues]",
        ),
        (&["force-unlock", ""], 2, "worker id: has 0 characters"),
        (&["sweep-stale-workers", "--sweep-threshold", "5 days"], 2, "write 300, 30s, 5m or 2h"),
        (&["stats", "--max-connections", "0"], 2, "max_connections: 0 is fewer than 1"),
        (&["stats", "--timeout", "soon"], 2, "write 300, 30s, 5m or 2h"),
        (&["stats", "--database-url", ""], 2, "--database-url URL, or set DATABASE_URL"),
        (&["stats", "--schema", "nowhere"], 4, "graphile-worker migrate makes it ready"),
        (&["add", "t", "--schema", "nowhere"], 4, "is \"nowhere\" the right --schema?"),
        (&["workers", "--schema", "nowhere"], 4, "run migrate first"),
        (&["stats", "--database-url", "postgres://ada@127.0.0.1:1/x"], 3, "127.0.0.1"),
    ] {
        let output = on(&db, arguments);
        let text = stderr(&output);
        assert_eq!(
            (output.status.code(), &*stdout(&output).replace("completed no job\n", "")),
            (Some(status), ""),
            "{arguments:?}: {text}"
        );
        assert!(text.contains(words), "{arguments:?}: {text}");
        assert!(!text.contains("secret"), "{arguments:?}: {text}");
    }
    assert_eq!(db.one::<String>("select jsonb_agg(j)::text from graphile_worker._private_jobs j"), before);
}

#[test]
fn add_passes_every_option_and_keeps_the_payload_bytes() {
    let db = TestDb::new();
    let payload = r#"{ "b": 1.50, "a": 1e3, "b": "\u0000ä" }"#;
    said(&on(
        &db,
        &[
            "add",
            "resize",
            "--payload",
            payload,
            "--queue",
            "q",
            "--run-at",
            "2031-02-03T05:05:06.25+01:00",
            "--max-attempts",
            "7",
            "--key",
            "k",
            "--job-key-mode",
            "preserve-run-at",
            "--priority",
            "-3",
            "--flag",
            "x",
            "--flag",
            "y",
        ],
    ));
    let job = db.one::<String>(
        "select concat_ws(' ', task_identifier, queue_name, run_at at time zone 'UTC', max_attempts, key, priority, flags)
           from graphile_worker.jobs",
    );
    assert_eq!(job, r#"resize q 2031-02-03 04:05:06.25 7 k -3 {"x": true, "y": true}"#);
    assert_eq!(db.one::<String>("select payload::text from graphile_worker._private_jobs"), payload);

    said(&on(&db, &["add", "other", "--key", "k", "--job-key-mode", "preserve-run-at"]));
    said(&on(&db, &["add", "third", "--key", "k", "--job-key-mode", "unsafe-dedupe"]));
    let job = db.one::<String>(
        "select concat_ws(' ', task_identifier, run_at at time zone 'UTC', revision)
           from graphile_worker.jobs",
    );
    assert_eq!(job, "other 2031-02-03 04:05:06.25 2");
}

#[test]
fn now_is_the_database_time_for_add_and_reschedule() {
    let db = TestDb::new();
    said(&on(&db, &["add", "t", "--run-at", "now"]));
    let id = db.add("'t', run_at => '2031-01-01'").to_string();
    for now in [&["--now"][..], &["--run-at", "NOW"]] {
        db.execute("update graphile_worker._private_jobs set run_at = '2031-01-01' where id > 1");
        said(&on(&db, &[&["reschedule", &id], now].concat()));
        assert!(
            db.one::<bool>(&format!("select run_at = updated_at from graphile_worker._private_jobs where id = {id}"))
        );
    }
    assert!(db.one::<bool>("select run_at = created_at from graphile_worker._private_jobs where id = 1"));
}

#[test]
fn a_payload_may_come_from_a_file_or_standard_input() {
    let db = TestDb::new();
    let file = std::env::temp_dir().join(format!("gw-it-payload-{}.json", std::process::id()));
    std::fs::write(&file, "[1,\n 2]\n").unwrap();
    said(&on(&db, &["add", "t", "--payload-file", file.to_str().unwrap()]));
    std::fs::remove_file(&file).unwrap();
    let mut program = program();
    program
        .env("DATABASE_URL", db.url())
        .args(["add", "t", "--payload-file", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut started = Started::new(&mut program);
    started.0.stdin.take().unwrap().write_all(b"3").unwrap();
    assert!(started.0.wait().unwrap().success());
    assert_eq!(
        db.all::<String>("select payload::text from graphile_worker._private_jobs order by id"),
        ["[1,\n 2]\n", "3"]
    );
}

#[test]
fn no_command_prints_control_or_invisible_characters() {
    let db = TestDb::new();
    let hostile = "a\u{9b}b\u{202e}c\u{200b}d\u{feff}e\u{2028}f\u{e0041}g\u{85}h\u{ad}i\u{7f}";
    let id = db.add(&format!(
        "'{hostile}', json_build_object('{hostile}', '{hostile}'), queue_name => '{hostile}', job_key => '{hostile}', flags => array['{hostile}']"
    ));
    let id = id.to_string();
    db.execute(&format!(
        "update graphile_worker._private_jobs set last_error = '{hostile}', locked_by = '{hostile}', locked_at = now();
         update graphile_worker._private_job_queues set locked_by = '{hostile}', locked_at = now();
         insert into graphile_worker._native_workers values ('{hostile}', now(), now(), to_jsonb('{hostile}'::text))"
    ));
    let unseen = |c: char| !matches!(c, ' '..='~' | '\n' | '\t' | 'ä');
    for (arguments, json) in [
        (&["list"][..], true),
        (&["list", "--identifier", hostile], true),
        (&["show", &id], true),
        (&["queues"], true),
        (&["workers"], true),
        (&["stats"], true),
        (&["add", hostile, "--payload", &format!("{{\r\"ä\":\t\"{hostile}\"}}")], true),
        (&["complete", &id], true),
        (&["remove", hostile, "--dry-run"], true),
        (&["remove", &format!("{hostile}!")], false),
        (&["force-unlock", hostile, &format!("{hostile}!"), "--dry-run"], true),
        (&["sweep-stale-workers", "--sweep-threshold", "0", "--dry-run"], true),
        (&["list", "--state", hostile], false),
        (&["migrate", hostile], false),
        (&["stats", "--schema", hostile], false),
        (&["stats", "--database-url", &format!("postgres://127.0.0.1:1/{hostile}")], false),
        (&["stats", "--database-url", &format!("host={hostile}")], false),
    ] {
        for format in [&["--json"][..], &[]] {
            // A command that connects gets a long timeout for a slow machine. One that cannot connect keeps the
            // default.
            let patience: &[&str] = if json { &["--timeout", "60s"] } else { &[] };
            let output = on(&db, &[arguments, format, patience].concat());
            let (said, complained) = (stdout(&output), stderr(&output));
            let found = said.chars().chain(complained.chars()).find(|&c| unseen(c));
            assert_eq!(found, None, "{arguments:?}: {said}{complained}");
            if json && !format.is_empty() {
                serde_json::from_str::<serde_json::Value>(&said)
                    .unwrap_or_else(|e| panic!("{arguments:?}: {said}: {e}"));
            }
        }
    }
    let list: serde_json::Value = serde_json::from_str(&said(&on(&db, &["list", "--json"]))).unwrap();
    assert_eq!((&list[0]["key"], &list[0]["payload"][hostile]), (&hostile.into(), &hostile.into()));
    assert_eq!(list[1]["payload"], serde_json::json!({ "ä": hostile }));
}

#[test]
fn text_of_a_job_cannot_control_the_terminal() {
    let db = TestDb::new();
    let id =
        db.add("E'\\x1b[2J', queue_name => E'a\\nb', job_key => E'k\\t', payload => to_json(chr(155))").to_string();
    db.execute(
        "update graphile_worker._private_jobs
            set last_error = E'one\\ntwo\\x1b]0;x\\x07', locked_by = E'w\\r', locked_at = now()",
    );
    for arguments in [&["list"][..], &["show", &id], &["queues"], &["workers"], &["force-unlock", "w\r", "--dry-run"]] {
        let text = said(&on(&db, arguments));
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{arguments:?}: {text:?}");
    }
    let text = said(&on(&db, &["list"]));
    assert!(text.contains("\\u{1b}[2J") && text.lines().count() == 2, "{text}");
    // The JSON output keeps the value unescaped, for programs.
    assert!(said(&on(&db, &["list", "--json"])).contains(r#""queue_name": "a\nb""#));
}

#[test]
fn a_closed_output_pipe_is_no_error() {
    let db = TestDb::new();
    db.execute(
        "select graphile_worker.add_job('t', json_build_object('x', repeat('x', 10000))) from generate_series(1, 50)",
    );
    let mut program = program();
    program.env("DATABASE_URL", db.url()).args(["list", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut listing = Started::new(&mut program);
    let mut first = [0; 1];
    listing.0.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut text = String::new();
    listing.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((listing.0.wait().unwrap().code(), &*text), (Some(0), ""));
}

#[test]
fn ctrl_c_ends_a_command_at_once_and_rolls_back() {
    let db = TestDb::new();
    let id = db.add("'t'").to_string();
    let mut client = db.client();
    for name in ["INT", "TERM"] {
        let mut transaction = client.transaction().unwrap();
        transaction.execute("select from graphile_worker._private_jobs for update", &[]).unwrap();
        let mut program = program();
        program.env("DATABASE_URL", db.url()).args(["complete", &id]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut completing = Started::new(&mut program);
        eventually(SOON, || db.waiting() > 0);
        completing.signal(name);
        let mut text = String::new();
        completing.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((completing.status().code(), &*text), (Some(130), "graphile-worker: interrupted\n"));
        transaction.rollback().unwrap();
        // The server still runs the statement of the ended program, but no client commits it.
        let others = "select count(*) from pg_stat_activity
                       where datname = current_database() and application_name <> 'harness'";
        eventually(SOON, || db.one::<i64>(others) == 0);
        assert_eq!(db.jobs(), 1);
    }
}

#[test]
fn a_database_that_does_not_reply_in_time_is_reported() {
    let db = TestDb::new();
    let id = db.add("'t'").to_string();
    let mut client = db.client();
    let mut transaction = client.transaction().unwrap();
    transaction.execute("select from graphile_worker._private_jobs for update", &[]).unwrap();
    let output = on(&db, &["complete", &id, "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("--timeout lets it take longer"), "{}", stderr(&output));
}

#[test]
fn a_dry_run_of_every_command_that_has_one_changes_nothing() {
    let db = TestDb::new();
    let id = db.add("'t', job_key => 'k', queue_name => 'q'").to_string();
    db.add("'t', max_attempts => 1");
    db.add("'t'");
    db.execute(
        "update graphile_worker._private_jobs set attempts = 1 where max_attempts = 1;
         update graphile_worker._private_jobs set locked_by = 'w', locked_at = now() where id = 3;
         insert into graphile_worker._private_job_queues (queue_name) values ('unused');
         insert into graphile_worker._private_tasks (identifier) values ('unused');
         insert into graphile_worker._native_workers (id, last_heartbeat_at) values ('w', now() - interval '1 day')",
    );
    let tables = "select jsonb_build_array(
        (select jsonb_agg(t order by id) from graphile_worker._private_jobs t),
        (select jsonb_agg(t order by id) from graphile_worker._private_job_queues t),
        (select jsonb_agg(t order by id) from graphile_worker._private_tasks t),
        (select jsonb_agg(t order by id) from graphile_worker._native_workers t))::text";
    let before = db.one::<String>(tables);
    for (arguments, words) in [
        (&["complete", &id][..], "would complete 1 job: 1"),
        (&["fail", &id], "would fail 1 job: 1"),
        (&["reschedule", &id, "--priority", "0"], "would reschedule 1 job: 1"),
        (&["remove", "k"], "would remove the job with key k"),
        (&["cleanup"], "would delete 1 failed job, 1 unused task, 1 unused queue"),
        (&["force-unlock", "w"], "would unlock 1 job and 0 queues"),
        (&["sweep-stale-workers"], "would recover the jobs of 1 worker: w"),
    ] {
        let text = said(&on(&db, &[arguments, &["--dry-run"]].concat()));
        assert_eq!(text.trim_end(), words);
        assert_eq!(db.one::<String>(tables), before, "{arguments:?}");
    }
}

#[test]
fn a_threshold_too_short_for_a_living_worker_is_reported() {
    let db = TestDb::new();
    let job = db.add("'t'");
    db.execute(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at, metadata)
           values ('slow', now() - interval '1 minute', '{\"heartbeat_interval_ms\": 30000}');
         update graphile_worker._private_jobs set locked_by = 'slow', locked_at = now()",
    );
    for options in [&["--dry-run"][..], &[]] {
        let text = said(&on(&db, &[&["sweep-stale-workers", "--sweep-threshold", "1s"], options].concat()));
        let warning = "threshold too short: worker slow sends a heartbeat every 30s, so it is stale after 90s";
        assert_eq!(text.lines().collect::<Vec<_>>(), ["no stale worker", warning]);
    }
    let still = format!("select locked_by from graphile_worker._private_jobs where id = {job}");
    assert_eq!(db.one::<String>(&still), "slow");
}

#[test]
fn workers_of_every_implementation_are_listed() {
    let db = TestDb::new();
    db.add("'t'");
    db.execute(
        "update graphile_worker._private_jobs set locked_by = 'node', locked_at = now();
         insert into graphile_worker._native_workers (id, last_heartbeat_at)
           values ('idle', now()), ('silent', now() - interval '2 minutes')",
    );
    let text = said(&on(&db, &["workers", "--sweep-threshold", "1m"]));
    let ends: Vec<_> = text
        .lines()
        .skip(1)
        .map(|line| (line.split(' ').next().unwrap(), line.split(' ').next_back().unwrap()))
        .collect();
    assert_eq!(ends, [("idle", "alive"), ("node", "unknown"), ("silent", "stale")]);
}

#[test]
fn warnings_of_the_library_are_shown() {
    let db = TestDb::new();
    db.execute("insert into graphile_worker.migrations (id) values (999999)");
    let output = on(&db, &["migrate"]);
    assert_eq!(stdout(&output), "schema graphile_worker is ready\n");
    let text = stderr(&output);
    assert!(
        text.starts_with("graphile-worker: warning: the schema is newer") && text.contains("newest_migration=999999"),
        "{text}"
    );
}

#[test]
fn dev_starts_a_database_until_ctrl_c_and_leaves_nothing() {
    let mut dev = Started::new(program().arg("dev").stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut url = String::new();
    BufReader::new(dev.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let mut client = Client::connect(url.trim(), NoTls).unwrap();
    client.execute("select graphile_worker.add_job('t')", &[]).unwrap();
    let folder: String = client.query_one("show data_directory", &[]).unwrap().get(0);
    let port: String = client.query_one("show port", &[]).unwrap().get(0);
    assert!(std::path::Path::new(&folder).exists());

    dev.signal("INT");
    assert!(dev.status().success());
    eventually(SOON, || !std::path::Path::new(&folder).exists());
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
}
