//! The private server: it has the options that the test set, and nothing of it outlives its owner.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use graphile_worker::ErrorKind;
use graphile_worker::devdb::{DevDb, Options, default_candidates, server_binaries};
use postgres::{Client, NoTls};

use crate::harness::{SOON, Started, eventually, is_alive, signal};

/// How long a watcher may take to clean up.
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
    assert!(Client::connect(&db.url(), NoTls).is_err(), "this pg_hba.conf admits no user over TCP");
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
fn a_paused_server_does_not_reply_until_resumed() {
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
    assert!(!home.exists() && start.elapsed() < GONE_WITHIN, "a paused server stops like any other");
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

/// How long a stop may take if the watcher does not help: only a hang takes longer.
const BOUNDED: Duration = Duration::from_secs(60);

/// Drops the server on a thread of its own, so that a drop that never returns fails the test.
#[track_caller]
fn drop_within_bound(db: DevDb) {
    let dropping = std::thread::spawn(move || drop(db));
    eventually(BOUNDED, || dropping.is_finished());
    dropping.join().unwrap();
}

#[test]
fn a_folder_that_cannot_be_deleted_does_not_hang_the_stop() {
    let db = fast();
    let (home, pid) = (db.socket_dir().to_owned(), db.postmaster_pid().unwrap());
    let kept = home.join("kept");
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("file"), "").unwrap();
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o0)).unwrap();
    drop_within_bound(db);
    assert!(!is_alive(pid));
    // Root can delete the folder, another user cannot.
    if home.exists() {
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_dir_all(&home).unwrap();
    }
}

#[test]
fn a_server_whose_folder_is_gone_is_stopped() {
    for whole in [false, true] {
        let db = fast();
        let mut backends = children_of(db.postmaster_pid().unwrap());
        backends.push(db.postmaster_pid().unwrap());
        let home = db.socket_dir().to_owned();
        fs::remove_dir_all(if whole { home.clone() } else { db.data_dir() }).unwrap();
        drop_within_bound(db);
        assert!(!home.exists());
        assert!(!backends.iter().any(|pid| is_alive(*pid)), "whole folder gone: {whole}");
    }
}

#[test]
fn a_watcher_that_is_killed_or_stopped_does_not_hang_the_stop() {
    for name in ["KILL", "STOP"] {
        let db = fast();
        let (home, pid) = (db.socket_dir().to_owned(), db.postmaster_pid().unwrap());
        signal(watcher_of(std::process::id(), &home), name);
        drop_within_bound(db);
        assert!(!home.exists() && !is_alive(pid), "{name}");
    }
}

#[test]
fn a_postmaster_that_was_killed_leaves_no_process_and_no_shared_memory() {
    let db = fast();
    let _client = Client::connect(&db.url(), NoTls).unwrap();
    let (home, postmaster) = (db.socket_dir().to_owned(), db.postmaster_pid().unwrap());
    let pid_file = fs::read_to_string(db.data_dir().join("postmaster.pid")).unwrap();
    let memory = pid_file.lines().nth(6).unwrap().split_whitespace().last().unwrap().to_owned();
    let segments = || String::from_utf8(Command::new("ipcs").arg("-m").output().unwrap().stdout).unwrap();
    let is_there = || segments().lines().any(|line| line.split_whitespace().nth(1) == Some(&memory));
    assert!(is_there());
    let backends = children_of(postmaster);
    signal(postmaster, "KILL");
    eventually(SOON, || !backends.iter().any(|pid| is_alive(*pid)));
    drop_within_bound(db);
    assert!(!home.exists() && !is_there());
}

#[test]
#[cfg(target_os = "linux")] // Looks into /proc.
fn a_second_ctrl_c_ends_dev_at_once_and_leaves_nothing() {
    let program = env!("CARGO_BIN_EXE_graphile-worker");
    let mut dev = Started::new(Command::new(program).arg("dev").stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut url = String::new();
    BufReader::new(dev.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let data = PathBuf::from(one(url.trim(), "show data_directory"));
    let home = data.parent().unwrap();
    let postmaster = fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let postmaster: u32 = postmaster.lines().next().unwrap().parse().unwrap();
    let watcher = watcher_of(dev.0.id(), home);
    signal(watcher, "STOP");
    dev.signal("INT");
    // Dev handles the first signal when no thread waits for it any more: the pipe to the watcher is then closed.
    eventually(SOON, || !has_pipe_to(dev.0.id(), watcher));
    dev.signal("INT");
    assert_eq!(dev.status().code(), Some(130));
    signal(watcher, "CONT");
    eventually(GONE_WITHIN, || !home.exists() && !is_alive(postmaster));
}

#[test]
fn dev_works_while_stderr_cannot_be_written() {
    let Ok(full) = fs::OpenOptions::new().write(true).open("/dev/full") else { return };
    let program = env!("CARGO_BIN_EXE_graphile-worker");
    let mut dev = Started::new(Command::new(program).arg("dev").stdout(Stdio::piped()).stderr(full));
    let mut url = String::new();
    BufReader::new(dev.0.stdout.take().unwrap()).read_line(&mut url).unwrap();
    assert_eq!(one(url.trim(), "select 'works'"), "works");
    // A panic after the first query would have ended the program with status 101.
    dev.signal("INT");
    assert!(dev.status().success());
}

#[test]
fn without_a_server_the_error_names_the_install_command() {
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

/// Not a test: the child process of the tests above.
#[test]
fn child_that_is_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let db = fast();
    println!("\ndevdb {} {}", db.postmaster_pid().unwrap(), db.socket_dir().display());
    std::thread::sleep(Duration::from_secs(60));
}

/// Starts a process with a server, calls `before` with the postmaster's pid, and kills the process.
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

/// The watcher of the server in `home`, which `owner` started.
fn watcher_of(owner: u32, home: &Path) -> u32 {
    let home = home.to_str().unwrap();
    let is_watcher = |pid: &u32| {
        let args = Command::new("sh")
            .args(["-c", "tr '\\0' ' ' < /proc/$1/cmdline || ps -o args= -p $1", "args", &pid.to_string()])
            .output();
        String::from_utf8_lossy(&args.unwrap().stdout).trim().ends_with(home)
    };
    children_of(owner).into_iter().find(is_watcher).expect("a watcher")
}

/// Whether `owner` holds the other end of the standard input of `watcher`.
#[cfg(target_os = "linux")]
fn has_pipe_to(owner: u32, watcher: u32) -> bool {
    let pipe = fs::read_link(format!("/proc/{watcher}/fd/0")).unwrap();
    let fds = fs::read_dir(format!("/proc/{owner}/fd")).unwrap();
    fds.flatten().any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == pipe))
}

fn children_of(parent: u32) -> Vec<u32> {
    let script = "for s in /proc/[0-9]*/status; do [ -e \"$s\" ] || exec ps -A -o pid=,ppid=
                  awk '/^Pid:/ { pid = $2 } /^PPid:/ { print pid, $2 }' \"$s\" 2>/dev/null; done";
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let pairs = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    pairs.filter(|(_, ppid)| ppid.trim() == parent.to_string()).filter_map(|(pid, _)| pid.parse().ok()).collect()
}
