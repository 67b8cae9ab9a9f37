//! One database: its connection string or pool, its sessions, and calls on pooled connections.
//! Knows nothing of the tables.

use super::deadline::{self, Pending};
use super::dial::ConnectionString;
use super::own_pool::OwnPool;
use super::pool::{Connection, ConnectionPool, WithDeadline};
use super::pooler;
use super::session::{Backend, Interrupt, Session, Setup};
use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The smallest number of sessions that the engine keeps for itself: listen, fetch, settle, lease.
pub(crate) const ENGINE_SESSIONS: u32 = 4;

/// With at least this many connections, a second fetch has one of them.
pub(crate) const ROOM_FOR_TWO_FETCHES: u32 = 10;

/// How long to wait for a second session, which only shows whether a pooler shares processes.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// One database, and how to connect to it.
#[derive(Clone)]
pub(crate) struct Database {
    /// `None` if the caller gave only a pool. Each engine session then keeps a connection of the pool while it is open.
    direct: Option<Arc<ConnectionString>>,
    pool: Arc<dyn ConnectionPool>,
    deadline: Duration,
    /// The server processes of abandoned sessions: sessions that were dropped while a call was running.
    pub(super) abandoned: Arc<Mutex<Vec<Backend>>>,
    /// The open sessions of engine threads, with their role.
    pub(super) open: Arc<Mutex<Vec<(&'static str, Backend)>>>,
    /// Whether sessions through a pool or a pooler were found to keep their processes.
    keeps_processes: Arc<AtomicBool>,
    /// How many connections the caller needs at once, if that is known.
    needed: Option<u32>,
}

impl Database {
    /// Opens a database by its connection string, with a pool of at most `handlers` connections that opens them as
    /// needed.
    pub(crate) fn open(url: &str, handlers: u32, deadline: Duration) -> Result<Self> {
        let direct = Arc::new(ConnectionString::new(url)?);
        let pool = Arc::new(OwnPool::new(&direct, handlers));
        Ok(Self::of(Some(direct), pool, deadline))
    }

    /// Opens a database by the caller's pool. If `url` is given, the engine's own sessions use that connection string.
    pub(crate) fn with_pool(pool: Arc<dyn ConnectionPool>, url: Option<&str>, deadline: Duration) -> Result<Self> {
        let direct = url.map(ConnectionString::new).transpose()?.map(Arc::new);
        let pool = Arc::new(WithDeadline(pool));
        Ok(Self::of(direct, pool, deadline))
    }

    fn of(direct: Option<Arc<ConnectionString>>, pool: Arc<dyn ConnectionPool>, deadline: Duration) -> Self {
        Self {
            direct,
            pool,
            deadline,
            abandoned: Arc::default(),
            open: Arc::default(),
            keeps_processes: Arc::default(),
            needed: None,
        }
    }

    /// Returns this database for a caller that needs `connections` connections at once. If there seem to be fewer,
    /// errors name that number.
    pub(crate) fn needing(self, connections: u32) -> Self {
        Self { needed: Some(connections), ..self }
    }

    /// Returns this database with another deadline for its calls.
    pub(crate) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Whether engine sessions take connections from the pool.
    pub(crate) fn engine_uses_pool(&self) -> bool {
        self.direct.is_none()
    }

    /// How many sessions are open, by role. Those of the pool count as `handler`, if the pool can report them.
    pub(crate) fn sessions(&self) -> BTreeMap<&'static str, u64> {
        let mut sessions = BTreeMap::new();
        self.open.lock().iter().for_each(|(role, _)| *sessions.entry(*role).or_default() += 1);
        if let Some(pooled) = self.pool.open_connections() {
            let lent = if self.engine_uses_pool() { sessions.values().sum() } else { 0 };
            sessions.insert("handler", u64::from(pooled).saturating_sub(lent));
        }
        sessions
    }

    pub(crate) fn pool_size(&self) -> u32 {
        self.pool.max_size()
    }

    /// Connects once, and sets nothing.
    pub(crate) fn reach(&self) -> Result<()> {
        let mut session = self.connect("utils", &Interrupt::new(), self.deadline)?;
        let looked = session.look();
        looked.map(drop).map_err(|e| self.with_need(e.context(format_args!("connecting to {}", session.target()))))
    }

    /// Opens a session of the engine. `role` becomes part of its application_name. Sets nothing before it is known that
    /// the session keeps its server process.
    pub(crate) fn session(&self, role: &str, interrupt: &Interrupt, setup: &Setup) -> Result<Session> {
        let mut session = self.connect(role, interrupt, self.deadline)?;
        let mut set_up = || {
            let backend = session.look()?;
            if !session.is_direct(backend) {
                self.refuse_shared_processes(&mut session, backend)?;
            }
            let mut setup = setup.clone();
            if self.direct.is_none() {
                setup.settings.push(("application_name", application_name(role)));
            }
            match session.set_up(backend, &setup)? {
                true => Ok(()),
                false => Err(pooler::refusal()),
            }
        };
        let result = set_up();
        result.map_err(|e| self.with_need(e.context(format_args!("connecting to {}", session.target()))))?;
        Ok(session)
    }

    /// Connects, and sets nothing.
    fn connect(&self, role: &str, interrupt: &Interrupt, deadline: Duration) -> Result<Session> {
        match &self.direct {
            Some(url) => Session::connect(url, role, deadline, interrupt),
            None => {
                let lent = self.pool.get(deadline).map_err(|e| e.context("taking a connection of the pool"));
                lent.map(|lent| Session::lent(lent, deadline, interrupt))
            }
        }
        .map_err(|e| self.with_need(e))
    }

    /// Refuses a pooler that gives one server process to several sessions of this worker, or several processes to one
    /// session.
    fn refuse_shared_processes(&self, session: &mut Session, backend: Backend) -> Result<()> {
        if self.open.lock().iter().any(|(_, other)| *other == backend) {
            return Err(pooler::refusal());
        }
        if self.keeps_processes.load(Ordering::Relaxed) {
            return pooler::refuse_change(session, backend);
        }
        let second = self.connect("look", &Interrupt::new(), SECOND_LOOK.min(self.deadline));
        let answer = second.and_then(|mut second| pooler::refuse_shared_processes(session, backend, &mut second));
        match answer {
            Ok(()) => self.keeps_processes.store(true, Ordering::Relaxed),
            Err(error) if error.kind() == ErrorKind::Config => return Err(error),
            // There is no room for a second session. In transaction mode the first session, which is idle, would leave
            // room.
            Err(_) => return pooler::refuse_change(session, backend),
        }
        Ok(())
    }

    /// Adds to an error how many connections are needed, if there seem to be too few.
    fn with_need(&self, error: Error) -> Error {
        match self.needed {
            Some(needed) if is_exhausted(&error) => error.context(format_args!(
                "there must be room for at least {needed} connections of this worker (max_connections and the connection \
                 limits of role and database in PostgreSQL, default_pool_size in PgBouncer)"
            )),
            _ => error,
        }
    }

    /// Ends what abandoned sessions may still be doing. Returns whether that is known to be over: a stopped server
    /// process receives the signal only when it continues.
    pub(super) fn end_abandoned(&self, session: &mut Session) -> Result<bool> {
        let old = self.abandoned.lock().clone();
        if old.is_empty() {
            return Ok(true);
        }
        let there = match session.end_backends(&old) {
            Ok(there) => there,
            // A role that may not end them now will not be allowed to at the next attempt.
            Err(error) if error.kind() == ErrorKind::Database => Vec::new(),
            Err(error) => return Err(error),
        };
        self.abandoned.lock().retain(|backend| !old.contains(backend) || there.contains(backend));
        Ok(there.is_empty())
    }

    /// Borrows a connection of the pool.
    pub(crate) fn connection(&self) -> Result<Connection> {
        refuse_async_context()?;
        self.pool.get(self.deadline)
    }

    /// How long a call of the caller may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs `call` on a connection of the pool, at most until `end`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        end: Instant,
        call: impl FnOnce(&mut postgres::Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pending = self.start(end, call)?;
        pending.wait(end.saturating_duration_since(Instant::now())).and_then(|answer| answer)
    }

    /// Starts `call` on a connection of the pool. Waits at most until `end` for one to become free.
    pub(super) fn start<T: Send + 'static>(
        &self,
        end: Instant,
        call: impl FnOnce(&mut postgres::Client) -> Result<T> + Send + 'static,
    ) -> Result<Pending<Result<T>>> {
        refuse_async_context()?;
        let mut connection = self.pool.get(end.saturating_duration_since(Instant::now()))?;
        deadline::start(move |_| {
            let answer = call(&mut connection);
            if answer.as_ref().is_err_and(|error| error.breaks_session() || error.is_stale()) && !connection.is_closed()
            {
                // Ends the session, so that any kind of pool drops the client. The statement that ends its own session
                // always returns an error.
                let _ = connection.batch_execute(include_str!("../sql/session/end_session.sql"));
            }
            if answer.is_ok() {
                connection.0.call_succeeded();
            }
            answer
        })
    }

    /// Runs `call` on a connection of the pool. Each of its steps has the deadline.
    pub(crate) fn run_in_steps<T: Send + 'static>(
        &self,
        call: impl FnOnce(&mut postgres::Client, &dyn Fn()) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        refuse_async_context()?;
        let mut connection = self.pool.get(self.deadline)?;
        deadline::call_in_steps(self.deadline, move |step| call(&mut connection, step))?
    }
}

fn application_name(role: &str) -> String {
    format!("graphile-worker:{role}")
}

/// Whether the error means, or may mean, that there are too few connections. A pooler lets clients wait, so a timeout
/// may mean it.
fn is_exhausted(error: &Error) -> bool {
    let contains = |words: &str| error.to_string().contains(words);
    match error.sqlstate() {
        Some(state) => state == "53300" || contains("max_client_conn") || contains("query_wait_timeout"),
        None => error.kind() == ErrorKind::Timeout || contains("in a pool of"),
    }
}

/// Refuses a call on a thread of an async runtime: a blocking call there would stall the runtime, or panic.
pub(crate) fn refuse_async_context() -> Result<()> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => Err(Error::new(
            ErrorKind::Misuse,
            "called on a thread of a tokio runtime; this library blocks, so call it inside tokio::task::spawn_blocking",
        )),
        Err(_) => Ok(()),
    }
}
