//! What a worker shows to the outside: its statistics, its trace contexts, its log lines.

use crate::harness::{Running, SOON, TestDb, eventually, log_lines};
use crossbeam_channel::bounded;
use graphile_worker::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn stats_count_finished_and_running_work() {
    let db = TestDb::new();
    db.add("'t', '\"good\"'");
    db.add("'t', '\"bad\"'");
    db.add("'t', '\"bad\"', max_attempts => 1");
    db.add("'t', '\"hang\"'");
    let (release, wait) = bounded::<()>(0);
    let options =
        db.worker().poll_interval(Duration::from_secs(3600)).define_raw_job("t", move |ctx: WorkerContext| {
            match ctx.payload() {
                b"\"bad\"" => Err("no"),
                b"\"hang\"" => {
                    ctx.connection().unwrap();
                    let _ = wait.recv();
                    Ok(())
                }
                _ => Ok(()),
            }
        });
    let running = Running::start(options);
    let stats = || running.worker.stats();
    eventually(SOON, || stats().failed == 2 && stats().completed == 1 && stats().listener == ListenerState::Listening);
    let now = stats();
    assert_eq!((now.claimed, now.retried, now.permanently_failed), (4, 1, 1));
    assert_eq!((now.running, now.held, now.in_flight), (1, 0, 1));
    assert_eq!((now.handler_times.count(), now.settle_lag), (3, Duration::ZERO));
    assert!(now.claim_sizes.sum() == 4 && now.claim_sizes.count() <= 4);
    assert_eq!(now.settle_sizes.sum(), 3);
    let are_there = |sessions: &BTreeMap<&'static str, u64>| {
        sessions.iter().all(|(role, &count)| db.backends(role).len() as u64 == count)
    };
    eventually(SOON, || stats().sessions.len() == 5 && are_there(&stats().sessions));

    // Another transaction locks the job's row, so its outcome waits.
    let mut other = db.client();
    let mut blocking = other.transaction().unwrap();
    blocking.execute("select from graphile_worker._private_jobs for update", &[]).unwrap();
    drop(release);
    eventually(SOON, || stats().settle_lag > Duration::from_millis(50));
    assert_eq!((stats().running, stats().in_flight), (0, 1));
    blocking.rollback().unwrap();
    eventually(SOON, || stats().in_flight == 0);
    assert!(stats().handler_times.max() > 0 && stats().completed == 2);
}

#[test]
fn the_listener_reports_off_and_degraded() {
    let db = TestDb::new();
    let off = Running::start(db.worker().use_notification_delivery(false).define_raw_job("t", |_| ()));
    eventually(SOON, || off.worker.stats().claims > 0);
    assert_eq!(off.worker.stats().listener, ListenerState::Off);
    off.stop().0.unwrap();

    let on = Running::start(db.worker().define_raw_job("t", |_| ()));
    let is = |state| eventually(SOON, || on.worker.stats().listener == state);
    is(ListenerState::Listening);
    let other = TestDb::new(); // PostgreSQL refuses this for the database of the session.
    other.execute(&format!("alter database {} allow_connections false", db.name()));
    db.backends("listen").into_iter().for_each(|pid| _ = db.terminate(pid));
    is(ListenerState::Degraded);
    other.execute(&format!("alter database {} allow_connections true", db.name()));
    is(ListenerState::Listening);
}

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A type that has no field for a trace context.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    number: u32,
}

type Seen = Arc<Mutex<Vec<Option<String>>>>;

impl TaskHandler for Order {
    const IDENTIFIER: &'static str = "order";

    fn run(self, ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        ctx.get_ext::<Seen>().unwrap().lock().unwrap().push(ctx.traceparent());
        if self.number > 0 {
            ctx.add_job(Order { number: self.number - 1 }, JobSpec::new())?;
        }
        Ok::<(), Error>(())
    }
}

#[derive(Serialize, Deserialize)]
struct Word(String);

impl TaskHandler for Word {
    const IDENTIFIER: &'static str = "word";
    fn run(self, _: WorkerContext) -> impl IntoTaskHandlerResult {}
}

#[test]
fn a_trace_goes_from_enqueue_to_handler_and_to_added_jobs() {
    let db = TestDb::new();
    let utils = db.utils();
    utils.add_job(Order { number: 1 }, JobSpec::new().traceparent(PARENT)).unwrap();
    assert_eq!(
        db.one::<String>("select payload #>> '{_trace,traceparent}' from graphile_worker._private_jobs"),
        PARENT
    );
    let seen = Seen::default();
    db.worker().define_job::<Order>().add_extension(seen.clone()).init().unwrap().run_once().unwrap();
    assert_eq!(*seen.lock().unwrap(), [Some(PARENT.to_owned()), Some(PARENT.to_owned())]);
    assert_eq!(db.jobs(), 0);
}

#[test]
fn a_trace_without_a_place_is_refused_and_raw_payloads_are_kept() {
    let db = TestDb::new();
    let utils = db.utils();
    let traced = || JobSpec::new().traceparent(PARENT);
    let errors = [
        utils.add_job(Order { number: 0 }, JobSpec::new().traceparent("00-1-2-3")).unwrap_err(),
        utils.add_job(Word("w".into()), traced()).unwrap_err(),
        utils.add_raw_job("order", &serde_json::json!({}), traced()).unwrap_err(),
    ];
    for error in errors {
        assert!(error.kind() == ErrorKind::Config && error.to_string().starts_with("traceparent: "), "{error}");
    }
    assert_eq!(db.jobs(), 0);
    let raw = r#"{ "_trace": {"traceparent": "anything"} }"#;
    utils.add_raw_jobs(vec![RawJob { identifier: "t".into(), payload: raw.into(), spec: JobSpec::new() }]).unwrap();
    assert_eq!(db.one::<String>("select payload::text from graphile_worker._private_jobs"), raw);
}

/// Every field name that a log line of this crate may use. None of them can hold a payload.
const VOCABULARY: &str = "worker_id job_id task queue attempt duration_ms error outcome thread seconds jobs queues \
    job_key doing left_out schema concurrency tasks server_version newest_migration queue_index heartbeats retirements \
    hook decision capacity events signal \
    path file timeout_ms unfit known role reason crontab tick backfilled previous_worker_id workers stored_bytes pause_ms entries has_room has_tables \
    variable nearest other_worker_id folder tries";

#[test]
fn log_lines_use_only_known_field_names() {
    let known: BTreeSet<&str> = VOCABULARY.split_whitespace().collect();
    let mut lines = 0;
    for (path, text) in sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        for macro_ in ["error!(", "warn!(", "info!(", "debug!(", "trace!("] {
            for (at, _) in text.match_indices(macro_) {
                let word_before = text[..at].chars().last().is_some_and(|c| c.is_alphanumeric() || c == '_');
                // The fields are before the semicolon; a line without fields has none.
                let Some((fields, _)) = text[at + macro_.len()..].split_once(';') else { continue };
                if word_before || fields.trim_start().starts_with('"') {
                    continue;
                }
                lines += 1;
                for name in names(fields) {
                    assert!(known.contains(name.as_str()), "{path}: a log line has the unknown field {name:?}");
                }
            }
        }
    }
    assert!(lines > 15, "only {lines} log lines were found");
}

/// The names in `a, b = f(x, y), c:% = d`.
fn names(fields: &str) -> Vec<String> {
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for c in fields.chars() {
        depth += match c {
            '(' | '[' | '{' => 1,
            ')' | ']' | '}' => -1,
            _ => 0,
        };
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            c => parts.last_mut().unwrap().push(c),
        }
    }
    let name = |part: &String| part.split(['=', ':']).next().unwrap_or_default().trim().to_owned();
    parts.iter().map(name).filter(|name| !name.is_empty()).collect()
}

fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.extension() {
            _ if path.is_dir() => found.extend(sources(&path)),
            Some(extension) if extension == "rs" => {
                found.push((path.display().to_string(), std::fs::read_to_string(&path).unwrap()));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn a_crontab_entry_without_its_task_is_warned_of_once() {
    drop(log_lines());
    let db = TestDb::new();
    let crontab = "* * * * * t ?id=known_entry\n* * * * * elsewhere ?id=entry_of_elsewhere";
    let running = Running::start(db.worker().define_raw_job("t", |_| ()).with_cron(crontab).unwrap());
    eventually(SOON, || running.worker.stats().claims > 0);
    let about = |entry: &str| {
        let lines = log_lines();
        let of_it = lines.iter().filter(|line| line.of == entry && line.text.contains("does not have"));
        of_it.map(|line| line.task.clone()).collect::<Vec<_>>()
    };
    assert_eq!((about("entry_of_elsewhere"), about("known_entry")), (vec!["elsewhere".to_owned()], vec![]));
}

#[test]
fn due_jobs_of_a_task_that_no_worker_has_are_logged_once() {
    drop(log_lines());
    let db = TestDb::new();
    db.execute(
        "insert into graphile_worker._native_workers (id, last_heartbeat_at, metadata) values
           ('live', now(), '{\"tasks\": [\"theirs\"]}'),
           ('silent', now() - interval '1 hour', '{\"tasks\": [\"misspelled\"]}')",
    );
    for task in ["misspelled", "misspelled", "theirs"] {
        db.add(&format!("'{task}'"));
    }
    db.add("'tomorrow', run_at => now() + interval '1 day'");
    let running = Running::start(db.worker().define_raw_job("t", |_| ()));
    eventually(SOON, || running.worker.worker_id().is_some());
    let id = running.worker.worker_id().unwrap();
    let told = || {
        let lines = log_lines();
        let unknown = lines.iter().filter(|line| line.of == id && line.text.contains("no live worker of this library"));
        unknown.map(|line| line.task.clone()).collect::<Vec<_>>()
    };
    eventually(SOON, || !told().is_empty());
    assert_eq!(told(), ["misspelled"]);
    let tasks = "select metadata ->> 'tasks' from graphile_worker._native_workers where id not in ('live', 'silent')";
    assert_eq!(db.one::<String>(tasks), "[\"t\"]");
}
