//! Measures loads that are hard for a job queue: slow jobs among fast ones, one and many named
//! queues, queues that are stuck. Workers run in processes of their own, on a private server with fsync on.
//! `cargo bench --bench shapes [fair|queues|named|stuck|held]`

mod common;

use common::median;
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{WorkerContext, WorkerOptions};
use postgres::{Client, NoTls};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [role, url] = &arguments[..] {
        if role == "worker" {
            // If jobs of 30 s run, the stop ends with the error that names them. This bench expects that.
            return worker(url);
        }
    }
    let wanted = |shape: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == shape);
    let db = DevDb::start(Options::default()).expect("starting PostgreSQL");
    let bench = Bench { url: db.url() };
    define(WorkerOptions::default().database_url(&bench.url)).init().expect("installing");
    if wanted("fair") {
        bench.fair();
    }
    if wanted("queues") {
        bench.queues();
    }
    if wanted("named") {
        bench.named();
    }
    if wanted("stuck") {
        bench.stuck();
    }
    if wanted("held") {
        bench.held();
    }
}

/// Defines the tasks: `work` sleeps for the milliseconds of its payload; `guarded` checks that it is alone in its
/// queue.
fn define(options: WorkerOptions) -> WorkerOptions {
    let overlaps = Arc::new(AtomicU64::new(0));
    options
        .define_raw_job("work", |ctx: WorkerContext| {
            let ms: u64 = ctx.job().payload_as().unwrap_or(0);
            std::thread::sleep(Duration::from_millis(ms));
        })
        .define_raw_job("guarded", move |ctx: WorkerContext| -> Result<(), Box<dyn std::error::Error>> {
            let queue: i64 = ctx.job().payload_as()?;
            let mut client = ctx.connection()?;
            let alone: bool = client.query_one("select pg_try_advisory_lock($1)", &[&queue])?.get(0);
            if !alone && queue > 0 {
                println!("overlap {}", overlaps.fetch_add(1, Ordering::Relaxed));
            }
            std::thread::sleep(Duration::from_millis(3));
            client.execute("select pg_advisory_unlock($1)", &[&queue])?;
            Ok(())
        })
}

/// A worker process with eight threads and default options. It runs until SIGTERM.
fn worker(url: &str) {
    define(WorkerOptions::default().database_url(url).concurrency(8))
        .init()
        .expect("a worker")
        .run()
        .unwrap_or_else(|e| eprintln!("{e}"));
}

struct Bench {
    url: String,
}

impl Bench {
    fn client(&self) -> Client {
        Client::connect(&self.url, NoTls).expect("connecting")
    }

    fn run(&self, sql: &str) {
        self.client().batch_execute(sql).expect(sql);
    }

    fn empty(&self) {
        self.run("truncate graphile_worker._private_jobs; delete from graphile_worker._private_job_queues");
        for settle in [
            "vacuum analyze graphile_worker._private_jobs",
            "vacuum analyze graphile_worker._private_job_queues",
            "checkpoint",
        ] {
            self.run(settle);
        }
    }

    fn count(&self, client: &mut Client, of: &str) -> i64 {
        client
            .query_one(&format!("select count(*) from graphile_worker._private_jobs where {of}"), &[])
            .expect("counting")
            .get(0)
    }

    fn spawn(&self) -> Process {
        let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
        Process(command.args(["worker", &self.url]).stdout(Stdio::piped()).spawn().expect("a worker process"))
    }

    /// Runs two worker processes until no job that matches `of` is left. Returns the time, and the lines that they
    /// print.
    fn drain(&self, of: &str) -> (Duration, Vec<String>) {
        let mut client = self.client();
        let start = Instant::now();
        let workers = [self.spawn(), self.spawn()];
        while self.count(&mut client, of) > 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        (start.elapsed(), workers.into_iter().flat_map(Process::end).collect())
    }

    /// Runs 20,000 no-ops, then 8 jobs of 30 s among 1,000 no-ops. Eight of sixteen threads stay free.
    fn fair(&self) {
        self.empty();
        self.run("select count(*) from graphile_worker.add_jobs(array(select row('work','0',null,null,null,null,null,null)::graphile_worker.job_spec from generate_series(1, 20000)))");
        let mut client = self.client();
        let workers = [self.spawn(), self.spawn()];
        while self.count(&mut client, "true") > 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        client
            .batch_execute(
                "select count(*) from graphile_worker.add_jobs(array(select row('work', (case when n % 125 = 60 then 30000 else 0 end)::text,
                 null,null,null,null,null,null)::graphile_worker.job_spec from generate_series(1, 1008) n))",
            )
            .expect("adding");
        let start = Instant::now();
        while self.count(&mut client, "payload::text <> '30000'") > 0 && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(2));
        }
        let last = start.elapsed();
        let slow = self.count(&mut client, "payload::text = '30000' and locked_at is not null");
        println!(
            "fair: the last of 1,000 no-ops ended {} ms after the commit, {slow} jobs of 30 s running (target 200)",
            last.as_millis()
        );
        for worker in workers {
            worker.end();
        }
    }

    /// Compares 100 queues of 100 jobs of 3 ms with the same jobs without queues.
    fn queues(&self) {
        let add = |queue: &str, guard: &str| {
            self.empty();
            self.run(&format!(
                "select count(*) from graphile_worker.add_jobs(array(select row('guarded', ({guard})::text::json, {queue}, null,null,null,null,null)::graphile_worker.job_spec
                 from generate_series(1, 100) n, generate_series(1, 100) q))"
            ));
        };
        let ratios = (0..3)
            .map(|_| {
                add("null", "-(n * 1000 + q)");
                let (unqueued, _) = self.drain("true");
                add("'q' || q", "q");
                let (queued, lines) = self.drain("true");
                let overlaps = lines.iter().filter(|line| line.starts_with("overlap")).count();
                let (slow, fast) = (10_000.0 / queued.as_secs_f64(), 10_000.0 / unqueued.as_secs_f64());
                println!(
                    "queues: {slow:.0} jobs/s queued, {fast:.0} unqueued, ratio {:.2}, overlaps {overlaps}",
                    slow / fast
                );
                slow / fast
            })
            .collect();
        println!("queues: median ratio {:.2} (target 0.5)", median(ratios));
    }

    /// Compares no-ops in 1, 100, 5,000 and 20,000 named queues with no-ops without a queue.
    fn named(&self) {
        const LOADS: [(u32, u32); 5] = [(0, 100_000), (1, 20_000), (100, 100_000), (5_000, 100_000), (20_000, 100_000)];
        let rate = |(queues, jobs): (u32, u32)| {
            self.empty();
            self.run(&format!(
                "select count(*) from graphile_worker.add_jobs(array(
                   select row('work', '0', 'q' || n % nullif({queues}, 0), null, null, null, null, null)::graphile_worker.job_spec
                     from generate_series(1, {jobs}) n));
                 analyze graphile_worker._private_jobs"
            ));
            let worker =
                define(WorkerOptions::default().database_url(&self.url).concurrency(10)).init().expect("a worker");
            let start = Instant::now();
            worker.run_once().expect("running");
            f64::from(jobs) / start.elapsed().as_secs_f64()
        };
        let rounds: Vec<Vec<f64>> = (0..3).map(|_| LOADS.map(rate).to_vec()).collect();
        for (place, (queues, _)) in LOADS.iter().enumerate() {
            let rates: Vec<f64> = rounds.iter().map(|round| round[place]).collect();
            let share = median(rounds.iter().map(|round| round[place] / round[0]).collect());
            let all: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
            println!("named: {queues} queues, {} jobs/s, {share:.2} of no queue (target 0.8)", all.join(" "));
        }
    }

    /// Runs 50,000 jobs without a queue: first alone, then behind 100,000 jobs that wait for two locked queues.
    fn stuck(&self) {
        let free = "select count(*) from graphile_worker.add_jobs(array(select row('work','0',null,null,null,null,null,null)::graphile_worker.job_spec from generate_series(1, 50000)))";
        let drain = || {
            let worker =
                define(WorkerOptions::default().database_url(&self.url).concurrency(8)).init().expect("a worker");
            let start = Instant::now();
            worker.run_once().expect("running");
            (50_000.0 / start.elapsed().as_secs_f64(), start.elapsed() / worker.stats().claims as u32)
        };
        let ratios = (0..3)
            .map(|_| {
                self.empty();
                self.run(free);
                self.run("vacuum analyze graphile_worker._private_jobs");
                let (alone, claim) = drain();
                self.empty();
                self.run(
                    "select count(*) from graphile_worker.add_jobs(array(select row('work','0','stuck' || n % 2, now() - interval '1 day',null,null,null,null)::graphile_worker.job_spec
                     from generate_series(1, 100000) n));
                     update graphile_worker._private_job_queues set locked_at = now(), locked_by = 'other'",
                );
                self.run(free);
                self.run("vacuum analyze graphile_worker._private_jobs");
                let (behind, claim_behind) = drain();
                println!(
                    "stuck: {behind:.0} jobs/s behind 100,000 stuck jobs ({:.1} ms a claim), {alone:.0} without ({:.1} ms a claim), ratio {:.2}",
                    claim_behind.as_secs_f64() * 1e3,
                    claim.as_secs_f64() * 1e3,
                    behind / alone
                );
                behind / alone
            })
            .collect();
        println!("stuck: median ratio {:.2}", median(ratios));
    }
}

impl Bench {
    /// Prints the number of jobs that wait in the worker for a thread, during four seconds of jobs of one kind.
    fn held(&self) {
        for (kind, jobs, ms) in [
            ("no-op", 100_000, "0"),
            ("1 ms", 20_000, "1"),
            ("100 ms", 2_000, "100"),
            ("mixed, one in ten 100 ms", 20_000, "case when n % 10 = 0 then 100 else 0 end"),
        ] {
            self.empty();
            self.run(&format!(
                "select count(*) from graphile_worker.add_jobs(array(select row('work', ({ms})::text, null,null,null,null,null,null)::graphile_worker.job_spec
                 from generate_series(1, {jobs}) n))"
            ));
            let worker =
                define(WorkerOptions::default().database_url(&self.url).concurrency(10)).init().expect("a worker");
            let mut held = Vec::new();
            std::thread::scope(|scope| {
                let run = scope.spawn(|| worker.run());
                let start = Instant::now();
                while start.elapsed() < Duration::from_secs(4) && worker.stats().completed < jobs {
                    held.push(worker.stats().held);
                    std::thread::sleep(Duration::from_millis(20));
                }
                worker.request_shutdown();
                run.join().expect("no panic").expect("running");
            });
            let over_time: Vec<u64> = held.iter().step_by(held.len().div_ceil(12).max(1)).copied().collect();
            println!("held, {kind}: at most {}, over time {over_time:?}", held.iter().max().unwrap_or(&0));
        }
    }
}

struct Process(Child);

impl Process {
    /// Stops the process, and returns the lines that it printed.
    fn end(mut self) -> Vec<String> {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let output = self.0.stdout.take().map(std::io::read_to_string).and_then(Result::ok).unwrap_or_default();
        let _ = self.0.wait();
        output.lines().map(str::to_owned).collect()
    }
}
