//! Measures a no-op job in each binding, compared with Rust in the same run and with Procrastinate. Each runs in a
//! process of its own and drains 100,000 jobs, in turn, in five rounds on a private server with fsync on. Prints for
//! each the median of jobs/s, its share of Rust's rate (the median of the rounds), and the process's CPU for 100,000
//! jobs.

mod common;

use common::{fill, left, median};
use graphile_worker::WorkerOptions;
use graphile_worker::devdb::{DevDb, Options};
use rustix::time::{ClockId, clock_gettime};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const JOBS: i64 = 100_000;
/// The number of jobs for Procrastinate, whose runs would take minutes with 100,000 jobs.
const FEWER_JOBS: i64 = 2_000;
const ROUNDS: usize = 5;
/// The programs of the other bindings use the same number.
const THREADS: usize = 4;

struct Program {
    name: &'static str,
    /// The share of Rust's jobs/s that it should reach.
    target: Option<f64>,
    command: fn() -> Command,
    /// Whether it is a binding of this library, which drains the jobs that this bench adds.
    ours: bool,
}

const PROGRAMS: [Program; 7] = [
    Program { name: "Rust", target: None, command: this_program, ours: true },
    Program { name: "C", target: Some(0.9), command: || Command::new(built("noop-c")), ours: true },
    Program { name: "Go", target: Some(0.6), command: || Command::new(built("noop-go")), ours: true },
    Program { name: "Python, threads", target: Some(0.35), command: || python("noop.py", "threads"), ours: true },
    Program { name: "Python, asyncio", target: Some(0.25), command: || python("noop.py", "asyncio"), ours: true },
    Program { name: "Procrastinate, threads", target: None, command: || procrastinate("threads"), ours: false },
    Program { name: "Procrastinate, asyncio", target: None, command: || procrastinate("asyncio"), ours: false },
];

/// Jobs per second, and seconds of CPU for 100,000 jobs.
#[derive(Clone, Copy)]
struct Cost {
    rate: f64,
    cpu: f64,
}

fn main() {
    if std::env::args().any(|argument| argument == "--child") {
        return drain();
    }
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    WorkerOptions::default().database_url(&db.url()).define_raw_job("noop", |_| ()).init().expect("installing");
    let mut rounds: Vec<Vec<Cost>> = Vec::new();
    for round in 0..ROUNDS {
        let costs: Vec<Cost> = PROGRAMS.iter().map(|program| cost(program, &db.url())).collect();
        let rates: Vec<String> = costs.iter().map(|cost| format!("{:.0}", cost.rate)).collect();
        println!("round {round}: {} jobs/s", rates.join(", "));
        rounds.push(costs);
    }
    println!("\n{:<24}{:>8}{:>10}{:>14}", "", "jobs/s", "of Rust's", "CPU s / 100k");
    for (place, program) in PROGRAMS.iter().enumerate() {
        let of = |what: fn(&[Cost], usize) -> f64| median(rounds.iter().map(|round| what(round, place)).collect());
        let rate = of(|round, place| round[place].rate);
        let share = of(|round, place| round[place].rate / round[0].rate);
        let cpu = of(|round, place| round[place].cpu);
        let target = program.target.map_or_else(String::new, |target| format!("   target {target:.2}"));
        println!("{:<24}{rate:>8.0}{share:>10.3}{cpu:>14.2}{target}", program.name);
    }
}

/// Runs one program once.
fn cost(program: &Program, url: &str) -> Cost {
    let jobs = if program.ours { JOBS } else { FEWER_JOBS };
    let filled = program.ours.then(|| fill(url, JOBS));
    let output =
        (program.command)().env("DATABASE_URL", url).output().expect("starting a program; `make bench` builds it");
    assert!(output.status.success(), "{}: {}", program.name, String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let [wall, cpu] = *text.split_whitespace().map(|word| word.parse::<f64>().expect("a number")).collect::<Vec<_>>()
    else {
        panic!("{}: {text}", program.name)
    };
    if let Some(mut client) = filled {
        assert_eq!(left(&mut client), 0, "{}: every job is gone", program.name);
    }
    Cost { rate: jobs as f64 / wall, cpu: cpu * JOBS as f64 / jobs as f64 }
}

/// Does in Rust what the programs of the other bindings do.
fn drain() {
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL");
    let worker = WorkerOptions::default().database_url(&url).concurrency(THREADS).define_raw_job("noop", |_| ());
    worker.init().expect("starting a worker").run_once().expect("running");
    println!("{} {}", wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
}

/// Returns the CPU time that this process has used.
fn cpu_seconds() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn this_program() -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.arg("--child");
    command
}

fn python(script: &str, mode: &str) -> Command {
    let mut command = Command::new(built("python/bin/python"));
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/languages").join(script)).arg(mode);
    command
}

fn procrastinate(mode: &str) -> Command {
    let mut command = python("procrastinate_noop.py", mode);
    command.arg(FEWER_JOBS.to_string());
    command
}

/// Returns the path of a program that benches/languages/build.sh builds.
fn built(name: &str) -> PathBuf {
    let folder = std::env::var_os("GRAPHILE_WORKER_ADAPTERS").map(PathBuf::from);
    folder.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/adapters")).join(name)
}
