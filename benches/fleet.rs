//! Measures many worker processes on one database: the rate of 100,000 no-op jobs from the first claim until the table
//! is empty, and the latency and the server's CPU of 100 jobs a second while all workers are mostly idle. Workers run in
//! processes of their own, on a private server with fsync on.
//! `cargo bench --bench fleet [drain|idle] [1 4 16]`: the numbers of processes.

mod common;

use common::{add, fill, median, server_cpu};
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{WorkerContext, WorkerOptions};
use postgres::{Client, NoTls};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const JOBS: i64 = 100_000;
const ROUNDS: usize = 3;
/// How many jobs the idle fleet gets, one each `PAUSE`.
const TRICKLE: usize = 1000;
const PAUSE: Duration = Duration::from_millis(10);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [role, url, threads] = &arguments[..] {
        if role == "worker" {
            return worker(url, threads.parse().expect("a number"));
        }
    }
    let sizes: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    let sizes = if sizes.is_empty() { vec![1, 4, 16] } else { sizes };
    let wanted =
        |part: &str| arguments.iter().all(|a| a.parse::<usize>().is_ok()) || arguments.iter().any(|a| a == part);
    let settings = vec![("max_connections".to_owned(), "500".to_owned())];
    let db = DevDb::start(Options { settings, ..Options::default() }).expect("starting PostgreSQL");
    let url = db.url();
    define(WorkerOptions::default().database_url(&url)).init().expect("installing");
    if wanted("drain") {
        let rates =
            (0..ROUNDS).map(|_| sizes.iter().map(|&size| drain(&url, size)).collect()).collect::<Vec<Vec<f64>>>();
        for (place, size) in sizes.iter().enumerate() {
            let rate = median(rates.iter().map(|round| round[place]).collect());
            println!("drain: {size} processes, median {rate:.0} jobs/s");
        }
    }
    if wanted("idle") {
        for &size in &sizes {
            idle(&db, size);
        }
    }
}

/// `noop` does nothing; `stamp` prints how many microseconds ago its job was added.
fn define(options: WorkerOptions) -> WorkerOptions {
    options.define_raw_job("noop", |_| ()).define_raw_job("stamp", |ctx: WorkerContext| {
        let sent: u64 = ctx.job().payload_as().expect("a time");
        println!("{}", now_us().saturating_sub(sent));
    })
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_micros() as u64
}

/// A worker process. It runs until SIGTERM.
fn worker(url: &str, threads: usize) {
    let worker = define(WorkerOptions::default().database_url(url).concurrency(threads)).init().expect("a worker");
    worker.run().unwrap_or_else(|e| eprintln!("{e}"));
}

fn spawn(url: &str, processes: usize) -> Vec<Child> {
    let threads = if processes == 1 { "10" } else { "2" };
    let start = |_| {
        let program = std::env::current_exe().expect("the path of this program");
        Command::new(program).args(["worker", url, threads]).stdout(Stdio::piped()).spawn().expect("a worker process")
    };
    let workers = (0..processes).map(start).collect();
    let mut client = Client::connect(url, NoTls).expect("connecting");
    // All are ready when each listens.
    let listening = "select count(*) from pg_stat_activity where query ilike 'listen %' or query like '%pg_notify%'";
    while client.query_one(listening, &[]).expect("counting").get::<_, i64>(0) < processes as i64 {
        sleep(Duration::from_millis(50));
    }
    workers
}

/// Stops the processes, and returns the numbers that they printed.
fn end(workers: Vec<Child>) -> Vec<u64> {
    let mut printed = Vec::new();
    for worker in &workers {
        let _ = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status();
    }
    for mut worker in workers {
        let lines = BufReader::new(worker.stdout.take().expect("piped")).lines();
        printed.extend(lines.map_while(Result::ok).filter_map(|line| line.parse::<u64>().ok()));
        let _ = worker.wait();
    }
    printed
}

/// The rate of processes that are running already when the jobs become visible.
fn drain(url: &str, processes: usize) -> f64 {
    let mut client = fill(url, 0);
    let workers = spawn(url, processes);
    add(&mut client, JOBS, "null");
    let start = Instant::now();
    while !client.query("select from graphile_worker._private_jobs limit 1", &[]).expect("looking").is_empty() {
        sleep(Duration::from_millis(10));
    }
    let rate = JOBS as f64 / start.elapsed().as_secs_f64();
    println!("  drain: {processes} processes, {rate:.0} jobs/s");
    end(workers);
    rate
}

/// Latency of single jobs, from just before the commit to the handler, and the server's CPU time for each.
fn idle(db: &DevDb, processes: usize) {
    let url = db.url();
    let mut client = fill(&url, 0);
    let workers = spawn(&url, processes);
    sleep(Duration::from_secs(2));
    let add = client.prepare("select graphile_worker.add_job('stamp', to_json($1::bigint))").expect("preparing");
    let (cpu, start) = (server_cpu(db), Instant::now());
    for n in 0..TRICKLE {
        sleep((start + PAUSE * n as u32).saturating_duration_since(Instant::now()));
        client.execute(&add, &[&(now_us() as i64)]).expect("adding");
    }
    sleep(Duration::from_millis(500));
    let cpu = (server_cpu(db) - cpu) / TRICKLE as f64 * 1e3;
    let mut latencies = end(workers);
    latencies.sort_unstable();
    let at =
        |share: f64| latencies.get((latencies.len() as f64 * share) as usize).map_or(f64::NAN, |&us| us as f64 / 1e3);
    println!(
        "idle: {processes} processes, {} of {TRICKLE} jobs, latency p50 {:.2} ms, p99 {:.2} ms, server CPU {cpu:.2} ms a job",
        latencies.len(),
        at(0.5),
        at(0.99)
    );
}
