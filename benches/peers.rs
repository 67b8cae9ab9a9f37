//! Measures this library and its peers side by side, on a private server with fsync on. `make bench BENCH=peers` builds
//! the drivers of the peers and runs everything. Needs Linux's `/proc`.
//!
//! `cargo bench --bench peers -- [SCENARIO…] [PEER…] [NAME=VALUE…]` runs a part, after `sh benches/peers/build.sh`. The
//! peers take turns in each round, and each run has a new database. The scenarios:
//!
//! - `drain`: no-op jobs, from the start of the worker until none is left, with default and with best settings.
//! - `snapshot`: the same again and again beside a transaction that stays open, so that vacuum removes no dead row. Best
//!   settings. A worker has `seconds` for all drains together; the last one counts with the jobs that ran until then.
//! - `fleet`: 1, 4 and 16 processes drain, with 10 jobs at once in one process, else 2. Best settings otherwise.
//! - `latency`: an idle worker gets 100 jobs a second, each in its own transaction. From the commit until the handler. The
//!   latency of a job that has not run after a minute is infinite.
//!
//! The names: `rounds` (3), `scale` of all numbers of jobs (1), `dead` jobs at the end of `snapshot` (250000), `seconds`
//! (60). A scenario that runs with all peers and scale 1 writes `benches/results`. If its file there has the same
//! machine, versions and commit, its rounds are added to those of the file.
//!
//! # Drivers
//!
//! Each peer has a driver in `benches/peers`, a program that reads `DATABASE_URL`. SETTINGS is `default` or `best`; each
//! driver says what is best, and where that is documented. Its words:
//!
//! - `version` prints the version of the peer.
//! - `setup SETTINGS` installs the tables.
//! - `add SETTINGS N BATCH` adds N jobs of the task `noop`, in calls with BATCH jobs each.
//! - `trickle SETTINGS N` adds N jobs of the task `stamp`, one each 10 ms, each in its own transaction. Prints
//!   `added I MICROSECONDS` just before it commits job I, with the time since 1970.
//! - `work SETTINGS [CONCURRENCY]` prints `ready`, waits for a line on its standard input and runs a worker until SIGTERM,
//!   or until its standard input closes. Each 10 ms it prints `ran N`, the number of no-op jobs so far, if that changed.
//!   The task `stamp` prints `at I MICROSECONDS`.

mod common;
#[path = "peers/ours.rs"]
mod ours;
#[path = "peers/plot.rs"]
mod plot;
#[path = "peers/progress.rs"]
mod progress;
#[path = "peers/results.rs"]
mod results;

use common::{cpu_seconds, server_cpu};
use graphile_worker::devdb::{DevDb, Options};
use postgres::{Client, NoTls};
use results::{Results, Sample};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How many jobs one call of `add` adds.
const BATCH: i64 = 1000;
const SNAPSHOT_JOBS: i64 = 50_000;
const TRICKLE: i64 = 1000;
/// After this time without progress a run fails.
const STUCK: Duration = Duration::from_secs(60);

struct Peer {
    name: &'static str,
    command: fn() -> Command,
    /// A query that returns a row if a job has not ended.
    unfinished: &'static str,
    /// The settings that it runs with, and the number of jobs of a drain: fewer if it is slow.
    settings: &'static [(&'static str, i64)],
    /// Whether it has a worker that waits for jobs.
    waits: bool,
}

const GRAPHILE: &str = "select from graphile_worker._private_jobs limit 1";

const PEERS: [Peer; 6] = [
    Peer {
        name: "ours",
        command: || this_program("ours"),
        unfinished: GRAPHILE,
        settings: &[("default", 100_000), ("best", 100_000)],
        waits: true,
    },
    Peer {
        name: "floor",
        command: || this_program("floor"),
        unfinished: GRAPHILE,
        settings: &[("best", 100_000)],
        waits: false,
    },
    Peer {
        name: "async",
        command: || Command::new(built("cargo/release/peer-async")),
        unfinished: GRAPHILE,
        // With default settings it starts one job per CPU at each poll, once a second, unless a job is added.
        settings: &[("default", 20), ("best", 100_000)],
        waits: true,
    },
    Peer {
        name: "node",
        command: || script("node".into(), "node/peer.mjs"),
        unfinished: GRAPHILE,
        settings: &[("default", 5_000), ("best", 100_000)],
        waits: true,
    },
    Peer {
        name: "river",
        command: || Command::new(built("river")),
        unfinished: "select from river_job where state <> 'completed' limit 1",
        settings: &[("default", 10_000), ("best", 100_000)],
        waits: true,
    },
    Peer {
        name: "procrastinate",
        command: || script(built("python/bin/python"), "procrastinate/peer.py"),
        unfinished: "select from procrastinate_jobs where status in ('todo', 'doing') limit 1",
        settings: &[("default", 2_000), ("best", 2_000)],
        waits: true,
    },
];

/// What the words of the command line select.
struct Plan {
    rounds: usize,
    scale: f64,
    dead: i64,
    limit: Duration,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["driver", peer, words @ ..] = &words[..] {
        return ours::run(peer, words);
    }
    let (named, words): (Vec<&str>, Vec<&str>) = words.into_iter().partition(|word| word.contains('='));
    let mut values = HashMap::from([("rounds", 3.0), ("scale", 1.0), ("dead", 250_000.0), ("seconds", 60.0)]);
    for (name, value) in named.iter().filter_map(|word| word.split_once('=')) {
        *values.get_mut(name).unwrap_or_else(|| panic!("unknown name {name}")) = value.parse().expect("a number");
    }
    let plan = Plan {
        rounds: values["rounds"] as usize,
        scale: values["scale"],
        dead: values["dead"] as i64,
        limit: Duration::from_secs_f64(values["seconds"]),
    };
    let peers = PEERS.iter().map(|peer| peer.name).collect::<Vec<_>>();
    let (scenarios, peers) = (selection(&words, &results::SCENARIOS), selection(&words, &peers));
    if let Some(word) = words.iter().find(|word| !scenarios.contains(word) && !peers.contains(word)) {
        panic!("{word} is neither a scenario nor a peer");
    }
    let peers: Vec<&Peer> = PEERS.iter().filter(|peer| peers.contains(&peer.name)).collect();

    let settings = vec![("max_connections".to_owned(), "500".to_owned())];
    let server = Server(DevDb::start(Options { settings, ..Options::default() }).expect("starting PostgreSQL"));
    let facts = server.facts(&peers);
    println!("{facts}");
    let is_whole = peers.len() == PEERS.len() && plan.scale == 1.0;
    for scenario in scenarios {
        let mut results = Results::new(scenario, &facts, is_whole);
        for _ in 0..plan.rounds {
            let round = results.next_round();
            for peer in &peers {
                for sample in server.measure(scenario, peer, &plan) {
                    println!("{scenario}, round {round}: {}", sample.line());
                    results.add(Sample { round, ..sample });
                }
            }
            results.write();
        }
        println!("\n{}", results.markdown());
    }
    if is_whole {
        results::render();
    }
}

/// Returns the names that the words mention, or all.
fn selection<'a>(words: &[&str], names: &[&'a str]) -> Vec<&'a str> {
    let named: Vec<&str> = names.iter().copied().filter(|name| words.contains(name)).collect();
    if named.is_empty() { names.to_vec() } else { named }
}

struct Server(DevDb);

impl Server {
    fn client(&self, database: &str) -> Client {
        Client::connect(&self.0.url_for(database), NoTls).expect("connecting")
    }

    /// Returns what the results depend on: machine, versions, commit. It names no host and no folder.
    fn facts(&self, peers: &[&Peer]) -> String {
        let show = |name: &str| -> String {
            self.client("postgres").query_one(&format!("show {name}"), &[]).expect("asking").get(0)
        };
        let versions = peers.iter().map(|peer| format!("{}: {}", peer.name, output((peer.command)().arg("version"))));
        let versions = versions.filter(|version| !version.starts_with("floor"));
        let server =
            format!("PostgreSQL {}, fsync {}, {}", show("server_version"), show("fsync"), show("shared_buffers"));
        let facts = [results::machine(), server + " of shared buffers", results::commit()];
        facts.into_iter().chain(versions).collect::<Vec<_>>().join("\n")
    }

    fn measure(&self, scenario: &str, peer: &Peer, plan: &Plan) -> Vec<Sample> {
        let scaled = |jobs: i64| ((jobs as f64 * plan.scale) as i64).max(20);
        let (best, most) = *peer.settings.last().expect("each peer has settings");
        match scenario {
            "drain" => {
                let settings = peer.settings.iter();
                settings.map(|&(settings, jobs)| self.drain(peer, settings, scaled(jobs), 1, None)).collect()
            }
            "fleet" => {
                [1, 4, 16].map(|processes| self.drain(peer, best, scaled(most), processes, Some(processes))).into()
            }
            "snapshot" => self.snapshot(peer, best, scaled(most.min(SNAPSHOT_JOBS)), plan),
            _ if !peer.waits => Vec::new(),
            _ => {
                let settings = peer.settings.iter();
                settings.map(|&(settings, _)| self.latency(peer, settings, scaled(TRICKLE))).collect()
            }
        }
    }

    /// `fleet`: how many processes share the jobs, with fewer jobs at once than the settings have.
    fn drain(&self, peer: &Peer, settings: &'static str, jobs: i64, processes: usize, fleet: Option<usize>) -> Sample {
        let mut run = Run::new(self, peer, settings);
        run.add(jobs);
        let concurrency = fleet.map(|processes| if processes == 1 { "10" } else { "2" });
        let sample = run.drain(jobs, processes, concurrency, STUCK * 60);
        Sample { at: fleet.unwrap_or(0) as i64, ..sample }
    }

    fn snapshot(&self, peer: &Peer, settings: &'static str, jobs: i64, plan: &Plan) -> Vec<Sample> {
        let mut run = Run::new(self, peer, settings);
        let mut holder = self.client(&run.database);
        holder.batch_execute("set application_name = 'holder'").expect("naming a session");
        holder
            .batch_execute("begin isolation level repeatable read; select from pg_class")
            .expect("holding a snapshot");
        let (mut samples, mut dead, mut left) = (Vec::new(), 0, plan.limit);
        while dead <= plan.dead && !left.is_zero() {
            run.add(jobs);
            let sample = run.drain(jobs, 1, None, left);
            left = left.saturating_sub(Duration::from_secs_f64(sample.seconds));
            let ran = sample.jobs;
            samples.push(Sample { at: dead, ..sample });
            dead += jobs;
            if ran < jobs {
                break;
            }
        }
        samples
    }

    fn latency(&self, peer: &Peer, settings: &'static str, jobs: i64) -> Sample {
        let mut run = Run::new(self, peer, settings);
        let mut workers = run.workers(1, None);
        workers.go();
        thread::sleep(Duration::from_secs(2));
        let (before, cpu) = (run.counters(), workers.cpu());
        let start = Instant::now();
        let added = output(run.driver("trickle").arg(jobs.to_string()));
        let seconds = start.elapsed().as_secs_f64();
        let patience = Instant::now() + STUCK;
        while workers.at.len() < jobs as usize && Instant::now() < patience {
            workers.read(Duration::from_millis(100));
        }
        let (sample, at) = run.sample(jobs, seconds, workers, before, cpu);
        let mut latencies: Vec<f64> = added
            .lines()
            .filter_map(|line| numbers(line.strip_prefix("added ")?))
            .filter_map(|(n, added)| Some((at.get(&n)? - added) as f64 / 1e3))
            .collect();
        if latencies.len() < jobs as usize {
            println!("{} {settings}: {} of {jobs} jobs ran within {STUCK:?}", peer.name, latencies.len());
            latencies.resize(jobs as usize, f64::INFINITY);
        }
        latencies.sort_by(f64::total_cmp);
        let share = |share: f64| latencies[((latencies.len() - 1) as f64 * share).round() as usize];
        Sample { p50: share(0.5), p99: share(0.99), ..sample }
    }
}

/// One run of a peer, on its own database.
struct Run<'a> {
    server: &'a Server,
    peer: &'a Peer,
    settings: &'static str,
    database: String,
    client: Client,
}

/// What the server has counted in the database of a run.
#[derive(Clone, Copy)]
struct Counters {
    wal: f64,
    commits: f64,
    dead: f64,
    cpu: f64,
}

impl<'a> Run<'a> {
    fn new(server: &'a Server, peer: &'a Peer, settings: &'static str) -> Self {
        let (mut client, template) = (server.client("postgres"), format!("{}_{settings}", peer.name));
        let exists = client.query("select from pg_database where datname = $1", &[&template]).expect("looking");
        if exists.is_empty() {
            client.batch_execute(&format!("create database {template}")).expect("creating a database");
            output((peer.command)().args(["setup", settings]).env("DATABASE_URL", server.0.url_for(&template)));
        }
        let database = format!("{template}_run");
        client.batch_execute(&format!("drop database if exists {database}")).expect("dropping a database");
        client.batch_execute(&format!("create database {database} template {template}")).expect("creating a database");
        Self { server, peer, settings, client: server.client(&database), database }
    }

    fn driver(&self, word: &str) -> Command {
        let mut command = (self.peer.command)();
        command.args([word, self.settings]).env("DATABASE_URL", self.server.0.url_for(&self.database));
        command
    }

    fn add(&mut self, jobs: i64) {
        output(self.driver("add").args([jobs.to_string(), BATCH.to_string()]));
        let mut client = self.server.client(&self.database);
        for settle in ["vacuum analyze", "checkpoint"] {
            client.batch_execute(settle).expect("settling the tables");
        }
    }

    fn workers(&mut self, processes: usize, concurrency: Option<&str>) -> Workers {
        self.wait_for_other_sessions();
        Workers::start((0..processes).map(|_| {
            let mut command = self.driver("work");
            command.args(concurrency);
            command
        }))
    }

    /// Drains the jobs, or as many as run until the limit.
    fn drain(&mut self, jobs: i64, processes: usize, concurrency: Option<&str>, limit: Duration) -> Sample {
        let mut workers = self.workers(processes, concurrency);
        let (before, cpu) = (self.counters(), workers.cpu());
        let start = workers.go();
        while workers.ran() < jobs && start.elapsed() < limit {
            workers.read(limit.saturating_sub(start.elapsed()));
        }
        // The last jobs have run. Their rows are written soon.
        while workers.ran() >= jobs && !self.client.query(self.peer.unfinished, &[]).expect("looking").is_empty() {
            thread::sleep(Duration::from_millis(2));
            assert!(start.elapsed() < limit + STUCK, "{} {}: no job ends", self.peer.name, self.settings);
        }
        let (ran, seconds) = (workers.ran().min(jobs), start.elapsed().as_secs_f64());
        self.sample(ran, seconds, workers, before, cpu).0
    }

    /// Stops the workers and returns what the run has cost, and the times of the stamps.
    fn sample(
        &mut self,
        jobs: i64,
        seconds: f64,
        mut workers: Workers,
        before: Counters,
        cpu: f64,
    ) -> (Sample, HashMap<i64, i64>) {
        let (now, client_cpu, rss) = (self.counters(), workers.cpu() - cpu, workers.peak_rss());
        workers.stop();
        self.wait_for_other_sessions();
        let after = self.counters();
        let each = |total: f64| total / jobs as f64;
        let sample = Sample {
            peer: self.peer.name.to_owned(),
            settings: self.settings.to_owned(),
            jobs,
            seconds,
            client_cpu: each(client_cpu),
            server_cpu: each(now.cpu - before.cpu),
            rss,
            wal: each(now.wal - before.wal),
            commits: each(after.commits - before.commits),
            dead: each(after.dead - before.dead),
            ..Sample::default()
        };
        (sample, std::mem::take(&mut workers.at))
    }

    /// Waits until the sessions of the drivers have ended, because a session reports then what it has counted.
    fn wait_for_other_sessions(&mut self) {
        let others = "select from pg_stat_activity
                       where datname = current_database() and pid <> pg_backend_pid()
                         and backend_type = 'client backend' and application_name <> 'holder'";
        let patience = Instant::now() + STUCK;
        while !self.client.query(others, &[]).expect("looking").is_empty() {
            assert!(Instant::now() < patience, "{}: a session stays", self.peer.name);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn counters(&mut self) -> Counters {
        let row = self.client.query_one(include_str!("peers/counters.sql"), &[]).expect("counting");
        Counters { wal: row.get(0), commits: row.get(1), dead: row.get(2), cpu: server_cpu(&self.server.0) }
    }
}

/// Worker processes of one run.
struct Workers {
    children: Vec<Child>,
    lines: Receiver<(usize, String)>,
    /// How many no-op jobs each process has run.
    ran: Vec<i64>,
    /// When each job of the task `stamp` ran, in microseconds since 1970.
    at: HashMap<i64, i64>,
}

impl Workers {
    /// Starts the processes, and returns when all are ready.
    fn start(commands: impl Iterator<Item = Command>) -> Self {
        let (sender, lines) = channel();
        let spawn = |(place, mut command): (usize, Command)| {
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("starting a driver; `make bench BENCH=peers` builds it");
            let (output, sender) = (child.stdout.take().expect("piped"), sender.clone());
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = sender.send((place, line));
                }
            });
            child
        };
        let children: Vec<Child> = commands.enumerate().map(spawn).collect();
        for _ in &children {
            let (_, line) = lines.recv_timeout(STUCK).expect("a driver that starts");
            assert_eq!(line, "ready");
        }
        Self { ran: vec![0; children.len()], children, lines, at: HashMap::new() }
    }

    /// Lets all workers start at once.
    fn go(&mut self) -> Instant {
        let start = Instant::now();
        for child in &mut self.children {
            child.stdin.as_mut().expect("piped").write_all(b"go\n").expect("a driver that waits");
        }
        start
    }

    fn ran(&self) -> i64 {
        self.ran.iter().sum()
    }

    /// Waits for a line, at most until the limit, and takes it in.
    fn read(&mut self, limit: Duration) {
        let Ok((place, line)) = self.lines.recv_timeout(limit.min(STUCK)) else {
            return assert!(limit < STUCK, "a driver has stopped");
        };
        if let Some(ran) = line.strip_prefix("ran ") {
            self.ran[place] = ran.parse().expect("a number");
        } else if let Some((n, at)) = line.strip_prefix("at ").and_then(numbers) {
            self.at.entry(n).or_insert(at);
        }
    }

    fn cpu(&self) -> f64 {
        let stat = |child: &Child| std::fs::read_to_string(format!("/proc/{}/stat", child.id()));
        self.children.iter().map(|child| cpu_seconds(&stat(child).expect("a driver that runs"))).sum()
    }

    /// Returns the MiB of memory that the processes had at most, together.
    fn peak_rss(&self) -> f64 {
        let peak = |child: &Child| {
            let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("a driver that runs");
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
            line.trim().trim_end_matches("kB").trim().parse::<f64>().expect("a number") / 1024.0
        };
        self.children.iter().map(peak).sum()
    }

    /// Ends the processes: by SIGTERM, and if that takes too long by SIGKILL.
    fn stop(&mut self) {
        for child in &self.children {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
        }
        let patience = Instant::now() + Duration::from_secs(15);
        for child in &mut self.children {
            while child.try_wait().expect("a child").is_none() && Instant::now() < patience {
                thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn numbers(text: &str) -> Option<(i64, i64)> {
    let (first, second) = text.split_once(' ')?;
    Some((first.parse().ok()?, second.parse().ok()?))
}

/// Runs a program to its end, and returns what it prints.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("starting a driver; `make bench BENCH=peers` builds it");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn this_program(peer: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(["driver", peer]);
    command
}

fn script(program: PathBuf, script: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(script));
    command
}

/// Returns the path of a program that benches/peers/build.sh builds: in the target folder, which has this program too.
fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    this.ancestors().nth(3).expect("target/release/deps").join("peers").join(name)
}
