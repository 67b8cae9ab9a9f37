//! Measures an idle worker over a minute: statements, CPU, memory, threads.
//! The worker runs in a process of its own, so that the bench does not measure itself.

mod common;

use common::cpu_seconds;
use graphile_worker::WorkerOptions;
use graphile_worker::devdb::{DevDb, Options};
use postgres::{Client, NoTls};
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// The limits of an idle worker: statements per poll interval, percent of a core, memory. The statements are one claim
/// per poll, and per minute two heartbeats, two probes of the notifications and three checks of tasks and schema.
const STATEMENTS: f64 = 1.13;
const CPU_PERCENT: f64 = 0.3;
const RSS_MB: f64 = 15.0;
const MORE_THREADS: usize = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [worker, url, concurrency] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        assert_eq!(worker, "--worker");
        return work(url, concurrency.parse().expect("a number"));
    }
    // The bench counts statements in the server's log: the server's statistics count transactions, its own included.
    let settings = [("log_min_duration_statement", "0"), ("log_line_prefix", "%d ")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let server = DevDb::start(Options { settings, ..Options::default() }).expect("a private server");
    println!("an idle worker over {MINUTE:?}, poll interval 1 s");
    println!("{:>12} {:>16} {:>8} {:>8} {:>8}", "concurrency", "statements/poll", "CPU %", "RSS MB", "threads");
    let kept = std::thread::scope(|scope| {
        let measures = [2, 10].map(|concurrency| {
            let server = &server;
            scope.spawn(move || measure(server, concurrency))
        });
        measures.map(|measure| measure.join().expect("a measure"))
    });
    assert!(kept == [true; 2], "an idle worker exceeds a limit");
}

/// The measured process: it ends when its input ends.
fn work(url: &str, concurrency: usize) {
    let options = WorkerOptions::default().database_url(url).concurrency(concurrency).listen_os_shutdown_signals(false);
    let worker = std::sync::Arc::new(options.define_raw_job("idle", |_| ()).init().expect("a worker"));
    let runner = worker.clone();
    let running = std::thread::spawn(move || runner.run());
    let _ = std::io::stdin().read(&mut [0]);
    worker.request_shutdown();
    running.join().expect("run() does not panic").expect("the worker ends well");
}

fn measure(server: &DevDb, concurrency: usize) -> bool {
    let mut admin = Client::connect(&server.url(), NoTls).expect("the server takes connections");
    let name = format!("idle_{concurrency}");
    admin.batch_execute(&format!("create database {name}")).expect("a database");
    let program = std::env::current_exe().expect("this program");
    let mut worker = Command::new(program)
        .args(["--worker", &server.url_for(&name), &concurrency.to_string()])
        .stdin(Stdio::piped())
        .spawn()
        .expect("starting the worker");
    // After this time every statement has run once, so all statements are prepared.
    sleep(MINUTE + Duration::from_secs(15));
    let (start, statements, cpu) = (Instant::now(), statements(server, &name), cpu_of(&worker));
    sleep(MINUTE);
    let seconds = start.elapsed().as_secs_f64();
    let statements = (self::statements(server, &name) - statements) as f64 / seconds;
    let percent = (cpu_of(&worker) - cpu) / seconds * 100.0;
    let rss = status(&worker, "VmRSS:") as f64 / 1024.0;
    let threads = status(&worker, "Threads:");
    println!("{concurrency:>12} {statements:>16.2} {percent:>8.2} {rss:>8.1} {threads:>8}");
    drop(worker.stdin.take());
    assert!(worker.wait().expect("a child of this process").success());
    assert!(statements > 0.5, "the log could not be parsed");
    statements <= STATEMENTS && percent <= CPU_PERCENT && rss <= RSS_MB && threads <= concurrency + MORE_THREADS
}

/// Returns the number of statements that were executed in a database.
fn statements(server: &DevDb, database: &str) -> usize {
    let log = fs::read_to_string(server.socket_dir().join("log")).expect("the server's log");
    let of = format!("{database} LOG:  duration: ");
    let executed =
        |line: &&str| line.starts_with(&of) && (line.contains(" ms  execute ") || line.contains(" ms  statement: "));
    log.lines().filter(executed).count()
}

/// Returns the user and system time of a process, in seconds.
fn cpu_of(process: &Child) -> f64 {
    cpu_seconds(&fs::read_to_string(format!("/proc/{}/stat", process.id())).expect("the bench needs Linux's /proc"))
}

/// Returns a number of `/proc/PID/status`.
fn status(process: &Child, field: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).expect("the bench needs Linux's /proc");
    let line = status.lines().find(|line| line.starts_with(field)).expect("a field of status");
    line.split_whitespace().nth(1).and_then(|value| value.parse().ok()).expect("a number")
}
