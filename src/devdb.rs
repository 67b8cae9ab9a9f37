//! A private, temporary PostgreSQL server from the binaries of this machine, for tests, demos and benchmarks.
//! Knows nothing of jobs: it returns URLs, and deletes all its files at the end.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::error::{Error, ErrorKind, Result};
use log::warn;

/// A running private server. Dropping it stops the server and deletes its folder.
///
/// The same happens within five seconds if this process ends in any other way, `kill -9` included. A small watcher
/// process reads from a pipe of this process, and cleans up when the pipe closes. Dropping waits for at most 20
/// seconds. If the folder cannot be deleted by then, a warning names it and it stays.
///
/// ```no_run
/// let db = graphile_worker::devdb::DevDb::start(Default::default())?;
/// println!("{}", db.url());
/// # Ok::<(), graphile_worker::Error>(())
/// ```
pub struct DevDb {
    cluster: Cluster,
    port: u16,
    watcher: Child,
    /// Open as long as this process lives. The watcher waits until it closes.
    pipe: Option<ChildStdin>,
}

/// The settings of a private server.
#[derive(Debug, Clone)]
pub struct Options {
    /// If true, commits wait for the disk. Defaults to `true`. `false` is faster and sufficient for tests. It also
    /// switches off `synchronous_commit` and `full_page_writes`.
    pub fsync: bool,
    /// More settings of `postgresql.conf`, as name and value. They override the defaults of this module. Defaults to
    /// none.
    pub settings: Vec<(String, String)>,
    /// Files to write into the data directory before the start, as name and content, for example certificates and keys
    /// for `ssl`, or another `pg_hba.conf`. Only the server's user can read them. Defaults to none.
    pub files: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: true, settings: Vec::new(), files: Vec::new() }
    }
}

impl DevDb {
    /// Creates a new database cluster and starts its server. This takes one or two seconds.
    ///
    /// The server listens on a free port of 127.0.0.1 and on a Unix socket in its own folder. It accepts every client
    /// there without a password, and has one role, `postgres`. PostgreSQL refuses to run as root. So if this process
    /// runs as root, the server runs as the user `postgres`, or as `nobody` if there is no such user.
    ///
    /// # Errors
    /// `ErrorKind::Config` if this machine has no PostgreSQL server, or if the server does not start. In the second
    /// case the text contains the end of the server's log. Never panics.
    pub fn start(options: Options) -> Result<Self> {
        let cluster = Cluster::new(server_binaries(default_candidates())?)?;
        let (watcher, pipe) = cluster.watch()?;
        // From here on, an early return drops the pipe. The watcher then deletes the folder.
        let mut db = Self { cluster, port: 0, watcher, pipe: Some(pipe) };
        db.cluster.create_cluster(&options)?;
        for attempt in 0.. {
            db.port = free_port()?;
            db.cluster.set_port(db.port)?;
            match db.cluster.start() {
                Ok(()) => break,
                // Another process took the port after `free_port` found it.
                Err(Start::PortTaken(_)) if attempt < 5 => continue,
                Err(other) => return Err(other.into()),
            }
        }
        Ok(db)
    }

    /// The URL for clients: `postgres://postgres@127.0.0.1:PORT/postgres`.
    pub fn url(&self) -> String {
        self.url_for("postgres")
    }

    /// The URL of another database of this server. The name is not percent-encoded.
    pub fn url_for(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The TCP port on 127.0.0.1. It stays the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.cluster.data()
    }

    /// The folder of the Unix socket. It contains all files of the server.
    pub fn socket_dir(&self) -> &Path {
        &self.cluster.home
    }

    /// The directory of the server's binaries, for programs such as `pg_dump`.
    pub fn bin_dir(&self) -> &Path {
        &self.cluster.bin
    }

    /// The process id of the postmaster. `None` while the server is down.
    pub fn postmaster_pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.cluster.data().join("postmaster.pid")).ok()?;
        text.lines().next()?.trim().parse().ok()
    }

    /// Stops the server immediately, as a crash does: sessions break, and the next start recovers from the write-ahead
    /// log. Also stops a paused server. Does nothing if the server is down.
    ///
    /// # Errors
    /// `ErrorKind::Config` if no shell could be started.
    pub fn stop_server(&self) -> Result<()> {
        self.cluster.run_script("end_server")
    }

    /// Starts a stopped server on its old port, and waits until it accepts connections.
    ///
    /// # Errors
    /// `ErrorKind::Config`, with the end of the server's log, if the server does not start or if another process holds
    /// its port for more than five seconds.
    pub fn start_server(&self) -> Result<()> {
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            match self.cluster.start() {
                Ok(()) => return Ok(()),
                Err(Start::PortTaken(_)) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(50)),
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// Calls [`stop_server`](Self::stop_server), then [`start_server`](Self::start_server).
    ///
    /// # Errors
    /// The errors of both functions.
    pub fn restart_immediate(&self) -> Result<()> {
        self.stop_server()?;
        self.start_server()
    }

    /// Freezes the postmaster and all its processes with SIGSTOP. The kernel still accepts connections and bytes, but
    /// the server sends no reply. [`resume`](Self::resume) ends the pause.
    ///
    /// # Errors
    /// `ErrorKind::Config` if no shell could be started.
    pub fn pause(&self) -> Result<()> {
        // The postmaster is stopped first, so that it does not fork a backend meanwhile.
        self.cluster.run_script("kill -STOP $(postmaster); kill -STOP $(members)")
    }

    /// Resumes a paused server.
    ///
    /// # Errors
    /// `ErrorKind::Config` if no shell could be started.
    pub fn resume(&self) -> Result<()> {
        self.cluster.run_script("kill -CONT $(members)")
    }
}

impl Drop for DevDb {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let cluster = &self.cluster;
        // If the watcher was killed or stopped, this process cleans up.
        if !succeeds_within(&mut self.watcher, CLEANUP) {
            let cleaned = cluster.shell("clean_up").spawn().is_ok_and(|mut shell| succeeds_within(&mut shell, CLEANUP));
            // If this process is root, it can delete files that the server's user cannot.
            if !cleaned && fs::remove_dir_all(&cluster.home).is_err() && cluster.home.exists() {
                warn!(folder:% = cluster.home.display(); "cannot delete the folder of a private PostgreSQL");
            }
        }
    }
}

/// How long one process may take to stop the server and delete its folder.
const CLEANUP: Duration = Duration::from_secs(10);

/// Waits for a process, and kills it at the deadline. Returns at the deadline even if the process cannot be killed.
fn succeeds_within(process: &mut Child, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        match process.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Ok(Some(status)) => return status.success(),
            Err(_) => return false,
        }
    }
    let _ = process.kill();
    let _ = process.try_wait();
    false
}

/// The folder, the directory of the binaries, and the user who runs them.
struct Cluster {
    home: PathBuf,
    bin: PathBuf,
    /// The user who runs the server. Set only if this process runs as root.
    user: Option<User>,
}

#[derive(Clone, Copy)]
struct User {
    uid: u32,
    gid: u32,
}

/// Why a server did not start.
enum Start {
    PortTaken(Error),
    Failed(Error),
}

impl From<Start> for Error {
    fn from(start: Start) -> Self {
        match start {
            Start::PortTaken(error) | Start::Failed(error) => error,
        }
    }
}

/// The functions that run in a shell, because the watcher must outlive this process and a minimal machine has `kill`
/// only as a shell builtin. `$1` is the home folder. Every backend leads its own session, so the script finds the
/// server's processes by their working directory, or by their parent where /proc is missing.
const SCRIPT: &str = r#"
home=$1
data=$1/data
members() {
  if [ -e /proc/self/comm ]; then
    for process in /proc/[0-9]*; do
      if read -r comm < "$process/comm" && [ "$comm" = postgres ] && works_in_data "$process"; then
        echo "${process#/proc/}"
      fi
    done
  elif read -r top < "$data/postmaster.pid"; then
    ps -A -o pid=,ppid=,comm= | awk -v top="$top" '($1 == top || $2 == top) && /postgres/ { print $1 }'
  fi
}
works_in_data() {
  if [ -e "$data" ]; then
    [ "$1/cwd" -ef "$data" ]
  else
    [ "$(readlink "$1/cwd")" = "$data (deleted)" ]
  fi
}
postmaster() {
  top=
  read -r top < "$data/postmaster.pid"
  for pid in $(members); do
    if [ "$pid" = "$top" ]; then echo "$pid"; fi
  done
}
await_end() {
  polls=0
  while [ -n "$(members)" ] && [ $polls -lt 60 ]; do sleep 0.02; polls=$((polls + 1)); done
}
end_server() {
  shared_memory=$(sed -n '7s/^ *[0-9]* *//p' "$data/postmaster.pid")
  kill -CONT $(members)
  # SIGQUIT is an immediate stop: the server removes its shared memory and its pid file.
  kill -QUIT $(postmaster)
  await_end
  if [ -n "$(members)" ]; then
    kill -STOP $(postmaster)
    kill -KILL $(members)
    await_end
  fi
  # A postmaster that was killed removes neither.
  if [ -e "$data/postmaster.pid" ]; then
    ipcrm -m $shared_memory
    rm -f "$data/postmaster.pid"
  fi
}
clean_up() {
  rounds=0
  while [ $rounds -lt 5 ]; do
    end_server
    rm -rf "$home"
    if [ ! -e "$home" ]; then return 0; fi
    # An initdb that still runs may write files after rm has read the folder.
    sleep 0.05
    rounds=$((rounds + 1))
  done
  return 1
}
watch() {
  # Signals such as Ctrl-C must not end the watcher. It waits until the pipe closes.
  trap '' HUP INT QUIT TERM
  while read -r line; do :; done
  clean_up
}
"#;

impl Cluster {
    fn new(bin: PathBuf) -> Result<Self> {
        let user = server_user()?;
        let parent = parent_folder(user);
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!(
            "gw-devdb-{}-{}-{:06x}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed),
            now.subsec_nanos() & 0xff_ffff
        );
        let home = parent.join(name);
        let failed = |e: std::io::Error| Error::config(format!("creating {}: {e}", home.display())).caused_by(e);
        fs::DirBuilder::new().mode(0o700).create(&home).map_err(failed)?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&home, Some(user.uid), Some(user.gid)).map_err(failed)?;
        }
        Ok(Self { home, bin, user })
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn log(&self) -> PathBuf {
        self.home.join("log")
    }

    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = as_user(program, self.user);
        // Not the working directory of the caller, because the server's user may have no access to it.
        command.current_dir("/");
        command
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        command.arg("-c").arg(format!("{SCRIPT}\n{script}")).arg("gw-devdb").arg(&self.home);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs one of the functions of [`SCRIPT`]. The exit status of its commands is ignored: if a process is already
    /// gone, nothing is left to do.
    fn run_script(&self, script: &str) -> Result<()> {
        self.shell(script).status().map(drop).map_err(|e| Error::config(format!("starting sh: {e}")).caused_by(e))
    }

    fn watch(&self) -> Result<(Child, ChildStdin)> {
        // The watcher has its own process group, so that Ctrl-C in a terminal does not reach it.
        let spawned = self.shell("watch").stdin(Stdio::piped()).process_group(0).spawn();
        let mut watcher = spawned.map_err(|e| {
            let _ = fs::remove_dir(&self.home);
            Error::config(format!("starting sh: {e}")).caused_by(e)
        })?;
        let pipe = watcher.stdin.take().expect("the watcher was spawned with a pipe");
        Ok((watcher, pipe))
    }

    fn create_cluster(&self, options: &Options) -> Result<()> {
        let mut initdb = self.command(self.bin.join("initdb"));
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-locale"]);
        initdb.arg("--pgdata").arg(self.data());
        let output = run(&mut initdb)?;
        if !output.success {
            return Err(Error::config(format!("initdb failed: {}", output.text.trim())));
        }
        let on_off = if options.fsync { "on" } else { "off" };
        let home = self.home.to_string_lossy();
        let ours = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &*home),
            ("max_connections", "300"),
            ("shared_buffers", "32MB"),
            // mmap keeps the segments in the data directory, which is deleted as a whole.
            ("dynamic_shared_memory_type", "mmap"),
            ("fsync", on_off),
            ("synchronous_commit", on_off),
            ("full_page_writes", on_off),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            ("lc_messages", "C"),
        ];
        let given = options.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut lines = String::from("\ninclude 'port.conf'\n");
        for (name, value) in ours.into_iter().chain(given) {
            lines.push_str(&setting(name, value));
        }
        let path = self.data().join("postgresql.conf");
        let shipped = fs::read_to_string(&path)
            .map_err(|e| Error::config(format!("reading {}: {e}", path.display())).caused_by(e))?;
        self.write("postgresql.conf", &format!("{shipped}{lines}"))?;
        options.files.iter().try_for_each(|(name, text)| self.write(name, text))
    }

    fn set_port(&self, port: u16) -> Result<()> {
        self.write("port.conf", &setting("port", &port.to_string()))
    }

    /// Writes a file of the data directory that only the server's user can read.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.data().join(name);
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            match self.user {
                Some(user) => std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid)),
                None => Ok(()),
            }
        };
        write().map_err(|e: std::io::Error| Error::config(format!("writing {}: {e}", path.display())).caused_by(e))
    }

    fn start(&self) -> Result<(), Start> {
        let written_before = fs::metadata(self.log()).map_or(0, |log| log.len() as usize);
        let mut pg_ctl = self.command(self.bin.join("pg_ctl"));
        pg_ctl.args(["start", "--wait", "--silent", "--timeout=60"]);
        pg_ctl.arg("--pgdata").arg(self.data()).arg("--log").arg(self.log());
        let output = run(&mut pg_ctl).map_err(Start::Failed)?;
        if output.success {
            return Ok(());
        }
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(log.get(written_before..).unwrap_or_default()).into_owned();
        let tail: Vec<&str> = log.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect();
        let error = Error::config(format!("the private PostgreSQL did not start:\n{}", tail.join("\n")));
        Err(if log.contains("could not bind") { Start::PortTaken(error) } else { Start::Failed(error) })
    }
}

fn setting(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}

struct Output {
    success: bool,
    text: String,
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.stdin(Stdio::null()).output().map_err(|e| {
        Error::config(format!("starting {}: {e}", Path::new(command.get_program()).display())).caused_by(e)
    })?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Ok(Output { success: output.status.success(), text })
}

fn as_user(program: impl AsRef<OsStr>, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    // Variables such as PGDATA and PGOPTIONS may belong to another server.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command
}

/// The user who runs the server. `None` (the user of this process) unless this process runs as root.
fn server_user() -> Result<Option<User>> {
    if id("-u", None) != Some(0) {
        return Ok(None);
    }
    ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| Some(User { uid: id("-u", Some(name))?, gid: id("-g", Some(name))? }))
        .map(Some)
        .ok_or_else(|| Error::config("PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`"))
}

fn id(flag: &str, name: Option<&str>) -> Option<u32> {
    let output = run(Command::new("id").arg(flag).args(name)).ok()?;
    // On macOS, the id of `nobody` is -2.
    output.text.trim().parse::<i64>().ok().filter(|_| output.success).map(|id| id as u32)
}

/// The system's temporary folder, if the server's user can write there. The path of a Unix socket in it must stay below
/// 100 bytes, which every system accepts. Otherwise `/tmp`.
fn parent_folder(user: Option<User>) -> PathBuf {
    let wished = std::env::temp_dir();
    // The canonical path, because the script compares it with the working directories of processes.
    let wished = wished.canonicalize().unwrap_or(wished);
    let mut probe = as_user("sh", user);
    probe.args(["-c", "cd \"$1\" && test -w .", "probe"]).arg(&wished).current_dir("/");
    let usable = wished.is_absolute() && wished.as_os_str().len() <= 50 && run(&mut probe).is_ok_and(|o| o.success);
    if usable { wished } else { PathBuf::from("/tmp") }
}

fn free_port() -> Result<u16> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| Error::new(ErrorKind::Connect, format!("looking for a free port: {e}")).caused_by(e))
}

/// Returns the first of `candidates` that contains a complete server: `initdb`, `pg_ctl` and `postgres`.
///
/// # Errors
/// `ErrorKind::Config` if none does. The text names the command that installs a server on this machine.
pub fn server_binaries(candidates: impl IntoIterator<Item = PathBuf>) -> Result<PathBuf> {
    candidates
        .into_iter()
        .find(|folder| ["initdb", "pg_ctl", "postgres"].iter().all(|program| folder.join(program).is_file()))
        .ok_or_else(|| {
            let command = if cfg!(target_os = "macos") {
                "brew install postgresql@16"
            } else if Path::new("/usr/bin/apt-get").exists() {
                "apt-get install postgresql"
            } else if Path::new("/usr/bin/dnf").exists() {
                "dnf install postgresql-server"
            } else if Path::new("/sbin/apk").exists() {
                "apk add postgresql"
            } else {
                "your package manager (for example: apt-get install postgresql)"
            };
            Error::config(format!(
                "no PostgreSQL server (initdb, pg_ctl, postgres) on this machine; install it with: {command}"
            ))
        })
}

/// The folders that may contain a PostgreSQL server on this machine, best first. These are the folders of `PATH`, the
/// one that `pg_config` reports, and those of the usual packages, the newest version first.
pub fn default_candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect();
    if let Ok(output) = run(Command::new("pg_config").arg("--bindir")) {
        if output.success {
            found.push(PathBuf::from(output.text.trim()));
        }
    }
    for (folder, prefix) in [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql"),
        ("/usr/local/opt", "postgresql"),
        ("/Applications/Postgres.app/Contents/Versions", ""),
    ] {
        found.extend(newest_first(Path::new(folder), prefix).into_iter().map(|version| version.join("bin")));
    }
    found
}

fn newest_first(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?.trim_start_matches('@');
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            // A folder without a version (`postgresql`, `latest`) is last.
            Some((digits.parse().unwrap_or(0), entry.path()))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path).collect()
}
