//! `make demo-languages`: one queue on a private PostgreSQL, and a worker each in Rust, C, Python, Go and Node, each in
//! a process of its own. Each of the five adds 100 jobs for each of the five: 10 with a key, 10 in a named queue, 5
//! that fail twice. Prints a table of languages that added and ran jobs. Exits with 0 only if every job ran as often as
//! it must.

use graphile_worker::devdb::{DevDb, Options};
use postgres::{Client, NoTls};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Done<T> = Result<T, Box<dyn Error>>;

const LANGUAGES: [&str; 5] = ["rust", "c", "python", "go", "node"];
const JOBS: usize = 100;
const KEYED: usize = 10;
const QUEUED: usize = 10;
const FAILING: usize = 5;
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> Done<ExitCode> {
    let server = DevDb::start(Options::default())?;
    let start = |language| Adapter::start(language, &server.url());
    let mut adapters = LANGUAGES.into_iter().map(start).collect::<Done<Vec<Adapter>>>()?;
    let mut database = Client::connect(&server.url(), NoTls)?;

    for adapter in &mut adapters {
        adapter.send(&["client"])?;
        adapter.work()?;
    }
    let start = Instant::now();
    for adapter in &mut adapters {
        adapter.add_jobs()?;
    }
    let left = "select count(*) from graphile_worker._private_jobs where attempts < max_attempts";
    while database.query_one(left, &[])?.get::<_, i64>(0) > 0 {
        if start.elapsed() > TIMEOUT {
            eprintln!("jobs are left after {TIMEOUT:?}");
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let took = start.elapsed();

    // For each pair (language that added, language that ran): how often each job ran.
    let mut runs: BTreeMap<(String, String), HashMap<String, usize>> = BTreeMap::new();
    for adapter in &mut adapters {
        for note in adapter.send(&["ran"])? {
            let job: Vec<&str> = note.splitn(3, ':').collect();
            let payload: serde_json::Value = serde_json::from_str(job[2])?;
            let text = |field: &str| payload[field].as_str().unwrap_or_default().to_owned();
            let cell = runs.entry((text("from"), adapter.language.to_owned())).or_default();
            *cell.entry(format!("{} {} {}", text("to"), text("kind"), payload["n"])).or_default() += 1;
        }
        adapter.send(&["stop", "graceful"])?;
    }

    println!("\nadded by (rows), run by (columns)\n{:>8}{}", "", LANGUAGES.map(|name| format!("{name:>8}")).concat());
    for from in LANGUAGES {
        let count = |to: &str| runs.get(&(from.to_owned(), to.to_owned())).map_or(0, HashMap::len);
        println!("{from:>8}{}", LANGUAGES.map(|to| format!("{:>8}", count(to))).concat());
    }
    let mistakes = mistakes(&runs);
    let failed: i64 = database.query_one("select count(*) from graphile_worker._private_jobs", &[])?.get(0);
    let all = JOBS * LANGUAGES.len() * LANGUAGES.len();
    println!("\n{all} jobs, in each cell {KEYED} keyed, {QUEUED} queued, {FAILING} failing twice, in {took:.1?}");
    println!("left in the table: {failed}; wrong: {}", mistakes.len());
    mistakes.iter().take(10).for_each(|mistake| println!("  {mistake}"));
    Ok(if mistakes.is_empty() && failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the mistakes. Each job must run once, on the worker it was added for; failing jobs must run three times.
fn mistakes(runs: &BTreeMap<(String, String), HashMap<String, usize>>) -> Vec<String> {
    let mut mistakes = Vec::new();
    for from in LANGUAGES {
        for to in LANGUAGES {
            let cell = runs.get(&(from.to_owned(), to.to_owned())).cloned().unwrap_or_default();
            for (kind, n) in jobs() {
                let job = format!("{to} {kind} {n}");
                let expected = if kind == "failing" { 3 } else { 1 };
                let ran = cell.get(&job).copied().unwrap_or(0);
                if ran != expected {
                    mistakes.push(format!("added by {from}, for {job}: ran {ran} times, not {expected}"));
                }
            }
            if cell.len() != JOBS {
                mistakes.push(format!("{to} ran {} jobs of {from}, not {JOBS}", cell.len()));
            }
        }
    }
    mistakes
}

/// Returns the jobs that one language adds for another.
fn jobs() -> impl Iterator<Item = (&'static str, usize)> {
    (0..JOBS).map(|n| match n {
        _ if n < KEYED => ("keyed", n),
        _ if n < KEYED + QUEUED => ("queued", n),
        _ if n < KEYED + QUEUED + FAILING => ("failing", n),
        _ => ("plain", n),
    })
}

/// A process that executes commands in its language; see tests/conformance/README.md.
struct Adapter {
    language: &'static str,
    process: Child,
    hears: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Adapter {
    fn start(language: &'static str, url: &str) -> Done<Self> {
        let folder =
            std::env::var_os("GRAPHILE_WORKER_ADAPTERS").map_or_else(|| "target/adapters".into(), PathBuf::from);
        let own = std::env::current_exe()?;
        let mut command = match language {
            "rust" => Command::new(own.with_file_name("adapter")),
            "node" => {
                let mut node = Command::new("node");
                node.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/adapter.mjs"));
                node
            }
            other => Command::new(folder.join(format!("adapter-{other}"))),
        };
        command.env("DATABASE_URL", url).stdin(Stdio::piped()).stdout(Stdio::piped());
        // Each has a log file of its own, because some log a line or two for each job.
        let log = folder.join(format!("{language}.log"));
        command.stderr(File::create(&log)?);
        let mut process = command.spawn().map_err(|e| format!("{language}: {e}; make demo-languages builds it"))?;
        println!("{language:>8}: process {}, log {}", process.id(), log.display());
        let hears = process.stdin.take().expect("it is piped");
        let says = BufReader::new(process.stdout.take().expect("it is piped"));
        Ok(Self { language, process, hears, says })
    }

    /// Sends a command; returns the fields after `ok`.
    fn send(&mut self, command: &[&str]) -> Done<Vec<String>> {
        writeln!(self.hears, "{}", command.join("\t"))?;
        self.hears.flush()?;
        let mut reply = String::new();
        self.says.read_line(&mut reply)?;
        let mut fields = reply.trim_end_matches('\n').split('\t').map(str::to_owned);
        match fields.next().as_deref() {
            Some("ok") => Ok(fields.collect()),
            _ => Err(format!("{}: {command:?} got the reply {reply:?}", self.language).into()),
        }
    }

    /// Starts a worker that runs only the jobs for its language.
    fn work(&mut self) -> Done<()> {
        let own = format!("for_{}", self.language);
        // Node's worker has forbidden flags, but no accepted flags.
        let others: Vec<String> =
            LANGUAGES.iter().filter(|name| **name != self.language).map(|name| format!("for_{name}")).collect();
        let flags = match self.language {
            "node" => format!("forbidden_flags={}", others.join(",")),
            _ => format!("accepted_flags={own}"),
        };
        self.send(&["worker", "concurrency=4", "poll_interval=500ms", &flags])?;
        self.send(&["start"]).map(drop)
    }

    /// Adds the jobs for all languages, with one call for each language.
    fn add_jobs(&mut self) -> Done<()> {
        let from = self.language;
        for to in LANGUAGES {
            for (kind, n) in jobs() {
                let payload = serde_json::json!({ "from": from, "to": to, "kind": kind, "n": n }).to_string();
                let (flag, key, queue) =
                    (format!("flag=for_{to}"), format!("key={from} {to} {n}"), format!("queue={to}"));
                let task = if kind == "failing" { "fail_twice" } else { "ok" };
                let mut command = vec!["and", task, &payload, &flag];
                match kind {
                    "keyed" => command.push(&key),
                    "queued" => command.push(&queue),
                    _ => {}
                }
                self.send(&command)?;
            }
            self.send(&["add_many"])?;
        }
        Ok(())
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let _ = self.hears.write_all(b"quit\n");
        let _ = self.process.wait();
    }
}
