//! The private server: it is what was asked for, and nothing of it survives us.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use graphile_worker::ErrorKind;
use graphile_worker::devdb::{DevDb, Options, default_candidates, server_binaries};
use postgres::{Client, NoTls};

use crate::harness::{SOON, eventually, is_alive, signal};

/// What a watcher may take to clean up.
const GONE_WITHIN: Duration = Duration::from_secs(5);
const CHILD: &str = "GW_DEVDB_CHILD";

fn fast() -> DevDb {
    DevDb::start(Options { fsync: false, ..Options::default() }).unwrap()
}

fn one(url: &str, sql: &str) -> String {
    Client::connect(url, NoTls).unwrap().query_one(sql, &[]).unwrap().get(0)
}

#[test]
fn two_servers_run_side_by_side() {
    let (one_db, other) = (fast(), fast());
    assert_ne!(one_db.port(), other.port());
    for db in [&one_db, &other] {
        assert_eq!(Path::new(&one(&db.url(), "show data_directory")), db.data_dir());
    }
    Client::connect(&one_db.url(), NoTls).unwrap().batch_execute("create database mine").unwrap();
    assert_eq!(one(&one_db.url_for("mine"), "select current_database()::text"), "mine");
    assert!(Client::connect(&other.url_for("mine"), NoTls).is_err());
}

#[test]
fn fsync_settings_and_files_are_honoured() {
    let options = Options {
        fsync: true,
        settings: vec![("max_connections".into(), "17".into()), ("cluster_name".into(), "it's mine".into())],
        files: vec![("pg_hba.conf".into(), "local all all trust\n".into())],
    };
    let db = DevDb::start(options).unwrap();
    let local = format!("host={} port={} user=postgres", db.socket_dir().display(), db.port());
    for (setting, expected) in
        [("fsync", "on"), ("synchronous_commit", "on"), ("max_connections", "17"), ("cluster_name", "it's mine")]
    {
        assert_eq!(one(&local, &format!("show {setting}")), expected, "{setting}");
    }
    assert!(Client::connect(&db.url(), NoTls).is_err(), "our pg_hba.conf admits nobody over TCP");
    let db = fast();
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(one(&db.url(), &format!("show {setting}")), "off", "{setting}");
    }
}

#[test]
fn dropping_it_leaves_no_folder_and_no_process() {
    let db = fast();
    let (home, pid) = (db.socket_dir().to_owned(), db.postmaster_pid().unwrap());
    let _client = Client::connect(&db.url(), NoTls).unwrap();
    drop(db);
    assert!(!home.exists() && !is_alive(pid));
}

#[test]
fn a_restart_keeps_port_and_data() {
    let db = DevDb::start(Options::default()).unwrap();
    Client::connect(&db.url(), NoTls).unwrap().batch_execute("create table kept()").unwrap();
    let before = db.postmaster_pid().unwrap();
    db.stop_server().unwrap();
    assert_eq!(db.postmaster_pid(), None);
    assert!(Client::connect(&db.url(), NoTls).is_err());
    db.start_server().unwrap();
    db.restart_immediate().unwrap();
    assert_ne!(db.postmaster_pid().unwrap(), before);
    assert_eq!(one(&db.url(), "select to_regclass('kept')::text"), "kept");
}

#[test]
fn a_paused_server_answers_nobody_until_it_is_resumed() {
    let db = fast();
    let mut client = Client::connect(&db.url(), NoTls).unwrap();
    db.pause().unwrap();
    let (done, answered) = std::sync::mpsc::channel();
    let asking = std::thread::spawn(move || done.send(client.simple_query("select 1").is_ok()));
    assert!(answered.recv_timeout(Duration::from_millis(200)).is_err());
    db.resume().unwrap();
    assert_eq!(answered.recv_timeout(SOON), Ok(true));
    asking.join().unwrap().unwrap();
    db.pause().unwrap();
    let home = db.socket_dir().to_owned();
    let start = Instant::now();
    drop(db);
    assert!(!home.exists() && start.elapsed() < GONE_WITHIN, "a paused server is stopped like any other");
}

#[test]
fn kill_9_of_its_owner_leaves_nothing() {
    let (home, postmaster) = kill_an_owner(|_| ());
    eventually(GONE_WITHIN, || !home.exists() && !is_alive(postmaster));
}

#[test]
fn kill_9_of_its_owner_leaves_nothing_of_a_stopped_server() {
    let mut backends = Vec::new();
    let (home, postmaster) = kill_an_owner(|postmaster| {
        signal(postmaster, "STOP");
        backends = children_of(postmaster);
        backends.iter().for_each(|pid| signal(*pid, "STOP"));
    });
    assert!(!backends.is_empty());
    backends.push(postmaster);
    eventually(GONE_WITHIN, || !home.exists() && !backends.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn without_a_server_the_error_says_how_to_install_one() {
    let nowhere = [PathBuf::from("/nonexistent"), std::env::temp_dir()];
    let error = server_binaries(nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let text = error.to_string();
    assert!(
        ["apt-get install", "brew install", "dnf install", "apk add"].iter().any(|command| text.contains(command)),
        "{text}"
    );
    assert!(server_binaries(default_candidates()).unwrap().join("initdb").exists());
}

/// The child of the tests above; does nothing in an ordinary run.
#[test]
fn child_that_is_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let db = fast();
    println!("\ndevdb {} {}", db.postmaster_pid().unwrap(), db.socket_dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts a process with a server, does `before` to its postmaster, and kills the process.
fn kill_an_owner(before: impl FnOnce(u32)) -> (PathBuf, u32) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "devdb::child_that_is_killed", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.into_iter().find_map(|line| line.strip_prefix("devdb ").map(str::to_owned)).expect("a server");
    let (pid, home) = line.split_once(' ').unwrap();
    let (home, pid) = (PathBuf::from(home), pid.parse().unwrap());
    assert!(home.exists() && is_alive(pid));
    before(pid);
    child.kill().unwrap();
    child.wait().unwrap();
    (home, pid)
}

fn children_of(parent: u32) -> Vec<u32> {
    let script = "for s in /proc/[0-9]*/status; do [ -e \"$s\" ] || exec ps -A -o pid=,ppid=
                  awk '/^Pid:/ { pid = $2 } /^PPid:/ { print pid, $2 }' \"$s\" 2>/dev/null; done";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    pairs.filter(|(_, ppid)| ppid.trim() == parent.to_string()).filter_map(|(pid, _)| pid.parse().ok()).collect()
}
