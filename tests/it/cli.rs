//! The program `graphile-worker`: its commands, what they print, and how they end.

use crate::harness::{SOON, TestDb, eventually, signal};
use postgres::{Client, NoTls};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

pub fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_graphile-worker"));
    // Whatever the machine has there is none of our business.
    program.env_remove("DATABASE_URL").env_remove("GRAPHILE_WORKER_SCHEMA").stdin(Stdio::null());
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
fn migrate_reads_the_environment_and_options_stand_before_or_after_it() {
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
fn a_database_that_is_not_there_is_told_without_the_password() {
    for (url, code, word) in [
        // Nobody listens on port 1.
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
fn what_is_missing_or_unknown_is_a_usage_error() {
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

/// A program that does not outlive its test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn dev_gives_a_database_until_ctrl_c_and_leaves_nothing() {
    let mut dev = Started(program().arg("dev").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut url = String::new();
    BufReader::new(dev.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let mut client = Client::connect(url.trim(), NoTls).unwrap();
    client.execute("select graphile_worker.add_job('t')", &[]).unwrap();
    let folder: String = client.query_one("show data_directory", &[]).unwrap().get(0);
    let port: String = client.query_one("show port", &[]).unwrap().get(0);
    assert!(std::path::Path::new(&folder).exists());

    signal(dev.0.id(), "INT");
    assert!(dev.0.wait().unwrap().success());
    eventually(SOON, || !std::path::Path::new(&folder).exists());
    assert!(TcpStream::connect(format!("127.0.0.1:{port}")).is_err());
}
