//! Measures large payloads: the peak memory of a worker that drains them, and its rate over a link of 100 Mbit/s. On
//! the link, tiny jobs precede large ones, and an urgent job is added last. The worker runs in a process of its own.
//! `cargo bench --bench large [10000x200K|200x20M|link]`

mod common;

use common::{left, link};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{WorkerContext, WorkerOptions, WorkerUtils};
use postgres::{Client, NoTls};
use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// 100 Mbit/s, in bytes.
const SLOW: u64 = 100_000_000 / 8;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [role, url] = &arguments[..]
        && role == "worker"
    {
        return work(url);
    }
    let wanted = |shape: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == shape);
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    WorkerUtils::connect(&db.url()).and_then(|utils| utils.migrate()).expect("installing");
    for (shape, jobs, size) in [("10000x200K", 10_000, 200 * KIB), ("200x20M", 200, 20 * MIB)] {
        if wanted(shape) {
            let mut client = fill(&db, jobs, size);
            let (took, peak) = drain(&mut client, &db.url(), || ());
            println!("{shape:>11}: {:>6.1} s, at most {:>6.1} MB of memory", took.as_secs_f64(), peak);
        }
    }
    if wanted("link") {
        let mut client = fill(&db, 600, MIB);
        let tiny = "select from graphile_worker.add_job('large', priority => -1), generate_series(1, 3000)";
        client.batch_execute(tiny).expect("adding");
        let port = link::limited(db.port(), SLOW);
        let url = db.url().replace(&db.port().to_string(), &port.to_string());
        let mut overtook = 0;
        let mut other = Client::connect(&db.url(), NoTls).expect("connecting");
        let (took, peak) = drain(&mut client, &url, || {
            while left(&mut other) > 400 {
                sleep(Duration::from_millis(50));
            }
            other.batch_execute("select graphile_worker.add_job('urgent', priority => -2)").expect("adding");
            let urgent = "select count(*) from graphile_worker.jobs where task_identifier = 'urgent'";
            while other.query_one(urgent, &[]).expect("counting").get::<_, i64>(0) > 0 {
                sleep(Duration::from_millis(10));
            }
            overtook = left(&mut other);
        });
        let bytes = 600.0 * MIB as f64;
        println!(
            "       link: {:>6.1} s, {:.2} of the link's rate, at most {peak:.1} MB of memory; an urgent job overtook {overtook}",
            took.as_secs_f64(),
            bytes / took.as_secs_f64() / SLOW as f64
        );
    }
}

/// Fills the empty queue with this number of jobs of this size. PostgreSQL cannot compress their payloads.
fn fill(db: &DevDb, jobs: usize, size: usize) -> Client {
    let mut client = Client::connect(&db.url(), NoTls).expect("connecting");
    client.batch_execute("truncate graphile_worker._private_jobs").expect("emptying");
    client
        .batch_execute(&format!(
            "with text as materialized (
               select string_agg(md5(random()::text), '') as text from generate_series(1, {size} / 32))
             select from text, generate_series(1, {jobs}) n, graphile_worker.add_job('large', to_json(n || text))"
        ))
        .expect("filling");
    client
}

/// Runs a worker until the queue is empty; returns how long that took and the peak of its memory, in MB.
fn drain(client: &mut Client, url: &str, meanwhile: impl FnOnce()) -> (Duration, f64) {
    let program = std::env::current_exe().expect("this program");
    let start = Instant::now();
    let worker =
        Command::new(program).args(["worker", url]).stdout(Stdio::piped()).spawn().expect("starting the worker");
    meanwhile();
    let output = worker.wait_with_output().expect("a child of this process");
    assert!(output.status.success() && left(client) == 0, "the worker drains the queue");
    let peak: f64 = String::from_utf8_lossy(&output.stdout).trim().parse().expect("kB");
    (start.elapsed(), peak / 1024.0)
}

/// The measured process: it prints its peak memory at the end.
fn work(url: &str) {
    let options = WorkerOptions::default().database_url(url);
    let options = options.define_raw_job("urgent", |_| ());
    let worker = options
        .define_raw_job("large", |ctx: WorkerContext| assert!(!ctx.payload().is_empty()))
        .init()
        .expect("a worker");
    worker.run_once().expect("the worker ends well");
    let status = fs::read_to_string("/proc/self/status").expect("the bench needs Linux's /proc");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a field of status");
    println!("{}", peak.trim().trim_end_matches(" kB"));
}
