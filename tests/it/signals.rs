//! Signals of the operating system, each sent to a separate process: this test binary, started again.

use crate::harness::{SOON, Started, TestDb, eventually, is_alive};
use graphile_worker::{WorkerContext, WorkerOptions};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const INT: i32 = 2;
const TERM: i32 = 15;

/// Not a test: the process of the tests below. Passes at once when run by itself.
#[test]
fn child() {
    let Ok(url) = std::env::var("SIGNALS_TEST_URL") else { return };
    let worker = |task: &str| {
        let handler = |ctx: WorkerContext| {
            let start = Instant::now();
            let patience = Duration::from_millis(ctx.job().payload_as().unwrap());
            while start.elapsed() < patience && !ctx.is_cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Ignores cancellation: only the end of the process ends this handler.
            if ctx.job().task_identifier() == "deaf" {
                std::thread::sleep(patience);
            }
        };
        let options = WorkerOptions::default().database_url(&url).concurrency(1).define_raw_job(task, handler);
        options.shutdown_grace_period(3 * SOON).init().unwrap()
    };
    match std::env::var("SIGNALS_TEST").unwrap().as_str() {
        "two" => {
            let workers = [worker("one"), worker("other")];
            std::thread::scope(|scope| {
                let runs = workers.each_ref().map(|worker| scope.spawn(|| worker.run()));
                runs.into_iter().for_each(|run| run.join().unwrap().unwrap());
            });
        }
        "over" => {
            worker("t").run_once().unwrap();
            say(&url, "over");
            std::thread::sleep(3 * SOON);
        }
        task => worker(task).run().unwrap(),
    }
    say(&url, "ended well");
}

fn say(url: &str, word: &str) {
    let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
    client.execute("insert into public.said values ($1)", &[&word]).unwrap();
}

/// A separate process and its database.
struct Process {
    started: Started,
    db: TestDb,
}

impl Process {
    /// Starts a process with a line of sh: `$0` is the program, `$@` are its arguments.
    fn start(what: &str, shell: &str) -> Self {
        let db = TestDb::new();
        db.execute("create table public.said (word text)");
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(std::env::current_exe().unwrap()).args(["--exact", "signals::child", "-q"]);
        command.env("SIGNALS_TEST_URL", db.url()).env("SIGNALS_TEST", what);
        Self { started: Started::new(command.stdout(Stdio::null()).stderr(Stdio::null())), db }
    }

    fn says(&self, word: &str) {
        eventually(SOON, || self.db.all::<String>("select word from public.said").contains(&word.to_owned()));
    }

    /// Waits until the given number of its workers listen.
    fn listens(&self, workers: usize) {
        eventually(SOON, || self.db.backends("listen").len() == workers);
    }
}

#[test]
fn one_signal_stops_every_worker_of_the_process() {
    for name in ["INT", "TERM", "HUP"] {
        let mut process = Process::start("two", "exec \"$0\" \"$@\"");
        process.listens(2);
        process.started.signal(name);
        assert!(process.started.status().success(), "{name}");
        process.says("ended well");
    }
}

#[test]
fn a_signal_after_the_end_of_the_worker_ends_the_process() {
    for (name, number) in [("INT", INT), ("TERM", TERM)] {
        let mut process = Process::start("over", "exec \"$0\" \"$@\"");
        process.says("over");
        process.started.signal(name);
        assert_eq!(process.started.status().signal(), Some(number));
    }
}

#[test]
fn the_second_signal_cancels_running_jobs_and_the_third_ends_the_process() {
    let mut process = Process::start("t", "exec \"$0\" \"$@\"");
    process.db.add("'t', '60000'");
    eventually(SOON, || process.db.locks() == 1);
    process.started.signal("TERM");
    // The operating system merges two signals that are sent at once.
    std::thread::sleep(Duration::from_millis(50));
    assert!(is_alive(process.started.0.id()), "the grace period has just begun");
    process.started.signal("TERM");
    assert!(process.started.status().success());

    let mut process = Process::start("deaf", "exec \"$0\" \"$@\"");
    process.db.add("'deaf', '60000'");
    eventually(SOON, || process.db.locks() == 1);
    for _ in 0..3 {
        process.started.signal("INT");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(process.started.status().signal(), Some(INT));
}

#[test]
fn an_ignored_signal_stays_ignored_and_another_stops_the_worker() {
    for ignored in ["HUP", "INT"] {
        let mut process = Process::start("t", &format!("trap '' {ignored}; exec \"$0\" \"$@\""));
        process.listens(1);
        process.started.signal(ignored);
        process.db.add("'t', '0'");
        eventually(SOON, || process.db.jobs() == 0);
        process.started.signal("TERM");
        assert!(process.started.status().success(), "{ignored}");
        process.says("ended well");
    }
}
