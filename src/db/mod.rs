//! Where connections come from: engine sessions with deadlines, and the handlers' pool.
//! Knows nothing of the tables.

mod change;
pub(crate) mod conninfo;
pub(crate) mod deadline;
mod dial;
pub(crate) mod migrate;
mod own_pool;
pub(crate) mod pool;
mod pooler;
pub(crate) mod schema;
pub(crate) mod session;
pub(crate) mod standing;
pub(crate) mod tls;

use crate::error::{Error, ErrorKind, Result};
use deadline::Pending;
use dial::Place;
pub(crate) use dial::given_or_environment;
use own_pool::OwnPool;
use parking_lot::Mutex;
use pool::{Connection, ConnectionPool, WithDeadline};
use session::{Backend, Interrupt, Session, Setup};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How many sessions the engine keeps for itself at least: listen, fetch, settle, lease.
pub(crate) const ENGINE_SESSIONS: u32 = 4;

/// With this many connections or more, a second fetch has one of them.
pub(crate) const ROOM_FOR_TWO_FETCHES: u32 = 10;

/// How long a second session is waited for that only tells whether a pooler shares processes.
const SECOND_LOOK: Duration = Duration::from_secs(2);

/// One database, and the ways to reach it.
#[derive(Clone)]
pub(crate) struct Database {
    /// Absent when the caller gave only a pool: engine sessions are then checked out of it for good.
    direct: Option<Arc<Place>>,
    pool: Arc<dyn ConnectionPool>,
    deadline: Duration,
    /// The server processes of sessions that were given up with a call under way.
    abandoned: Arc<Mutex<Vec<Backend>>>,
    /// The sessions that engine threads have open, by role.
    open: Arc<Mutex<Vec<(&'static str, Backend)>>>,
    /// Whether sessions through a pool or a pooler were found to keep their processes.
    keeps_processes: Arc<AtomicBool>,
    /// How many connections there must be room for, if that is known.
    needed: Option<u32>,
}

impl Database {
    /// A database by its connection string, with a pool of `handlers` connections that opens lazily.
    pub(crate) fn open(url: &str, handlers: u32, deadline: Duration) -> Result<Self> {
        let direct = Arc::new(Place::new(url)?);
        let pool = Arc::new(OwnPool::new(&direct, handlers));
        Ok(Self::of(Some(direct), pool, deadline))
    }

    /// A database by the caller's pool, and, when given, a connection string for the engine's own sessions.
    pub(crate) fn with_pool(pool: Arc<dyn ConnectionPool>, url: Option<&str>, deadline: Duration) -> Result<Self> {
        let direct = url.map(Place::new).transpose()?.map(Arc::new);
        let pool = Arc::new(WithDeadline(pool));
        Ok(Self::of(direct, pool, deadline))
    }

    fn of(direct: Option<Arc<Place>>, pool: Arc<dyn ConnectionPool>, deadline: Duration) -> Self {
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

    /// The same, for a caller that needs so many connections at once: told when there are too few.
    pub(crate) fn needing(self, connections: u32) -> Self {
        Self { needed: Some(connections), ..self }
    }

    /// The same database, with another deadline for its calls.
    pub(crate) fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Whether engine sessions take connections away from the pool.
    pub(crate) fn engine_uses_pool(&self) -> bool {
        self.direct.is_none()
    }

    /// How many sessions are open, by role; those of the pool as `handler`, where it can tell.
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

    /// Opens a session of the engine; `role` is what the server's activity list shows. Nothing is set before it is
    /// known that the session keeps its server process.
    pub(crate) fn session(&self, role: &str, interrupt: &Interrupt, setup: &Setup) -> Result<Session> {
        let mut session = self.connect(role, interrupt, self.deadline)?;
        let mut settle_in = || {
            let backend = session.look()?;
            if !session.is_direct(backend) {
                self.refuse_shared_processes(&mut session, backend)?;
            }
            let mut setup = setup.clone();
            if self.direct.is_none() {
                setup.settings.push(("application_name", application_name(role)));
            }
            match session.settle_in(backend, &setup)? {
                true => Ok(()),
                false => Err(pooler::refusal()),
            }
        };
        let settled = settle_in();
        settled.map_err(|e| self.with_need(e.context(format_args!("connecting to {}", session.target()))))?;
        Ok(session)
    }

    /// Connects, and sets nothing.
    fn connect(&self, role: &str, interrupt: &Interrupt, deadline: Duration) -> Result<Session> {
        match &self.direct {
            Some(place) => Session::connect(place, role, deadline, interrupt),
            None => {
                let lent = self.pool.get(deadline).map_err(|e| e.context("taking a connection of the pool"));
                lent.map(|lent| Session::lent(lent, deadline, interrupt))
            }
        }
        .map_err(|e| self.with_need(e))
    }

    /// Refuses a pooler that gives one server process to several sessions of ours, or several to one.
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
            // There was no room for a second session: in transaction mode the first, which is idle, would have left some.
            Err(_) => return pooler::refuse_change(session, backend),
        }
        Ok(())
    }

    /// Says how many connections are needed if there seem to be too few.
    fn with_need(&self, error: Error) -> Error {
        match self.needed {
            Some(needed) if is_exhausted(&error) => error.context(format_args!(
                "there must be room for at least {needed} connections of this worker (max_connections and the connection \
                 limits of role and database in PostgreSQL, default_pool_size in PgBouncer)"
            )),
            _ => error,
        }
    }

    /// Ends what given-up sessions may still be doing. Answers whether it is known to be over: a
    /// server process that is stopped hears of it only when it goes on.
    fn end_abandoned(&self, session: &mut Session) -> Result<bool> {
        let old = self.abandoned.lock().clone();
        if old.is_empty() {
            return Ok(true);
        }
        let there = match session.end_backends(&old) {
            Ok(there) => there,
            // Whoever may not end them will not be allowed to at the next try.
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

    /// How long a call of the caller's may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs `call` on a connection of the pool until `end`.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        end: Instant,
        call: impl FnOnce(&mut postgres::Client) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let pending = self.start(end, call)?;
        pending.wait(end.saturating_duration_since(Instant::now())).and_then(|answer| answer)
    }

    /// Starts `call` on a connection of the pool, as soon as one comes free before `end`.
    fn start<T: Send + 'static>(
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
                // Any pool drops a client whose session has ended. The end is an error to whoever asks for it.
                let _ = connection.batch_execute(include_str!("../sql/session/end_session.sql"));
            }
            if answer.is_ok() {
                connection.0.call_succeeded();
            }
            answer
        })
    }

    /// Runs `call` on a connection of the pool; each of its steps has the deadline.
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

/// Whether the error is, or may be, that there are too few connections: a pooler lets clients wait.
fn is_exhausted(error: &Error) -> bool {
    let says = |words: &str| error.to_string().contains(words);
    match error.sqlstate() {
        Some(state) => state == "53300" || says("max_client_conn") || says("query_wait_timeout"),
        None => error.kind() == ErrorKind::Timeout || says("in a pool of"),
    }
}

/// Blocking calls on a thread of an async runtime would stall it, or panic: say so instead.
pub(crate) fn refuse_async_context() -> Result<()> {
    match tokio::runtime::Handle::try_current() {
        Ok(_) => Err(Error::new(
            ErrorKind::Misuse,
            "called on a thread of a tokio runtime; this library blocks, so call it inside tokio::task::spawn_blocking",
        )),
        Err(_) => Ok(()),
    }
}

/// The place of one engine session: connects when it is needed, gives it up when it broke.
pub(crate) struct Reconnecting {
    database: Database,
    role: &'static str,
    interrupt: Interrupt,
    /// What every new session of this seat is set up with.
    setup: Setup,
    session: Option<Session>,
    /// Counts the session while it is open.
    counted: Option<Counted>,
    /// How often this seat has connected.
    connects: u64,
}

impl Reconnecting {
    pub(crate) fn new(database: &Database, role: &'static str, interrupt: &Interrupt, setup: Setup) -> Self {
        Self {
            database: database.clone(),
            role,
            interrupt: interrupt.clone(),
            setup,
            session: None,
            counted: None,
            connects: 0,
        }
    }

    /// How often this seat has connected: a change means that notifications and locks may have been missed.
    pub(crate) fn connects(&self) -> u64 {
        self.connects
    }

    /// Runs `call` on the seat's session, connecting first if there is none.
    pub(crate) fn with<T>(&mut self, call: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        if self.session.is_none() {
            let session = self.connect()?;
            self.counted = Some(Counted::new(&self.database, self.role, session.backend()));
            self.session = Some(session);
            self.connects += 1;
        }
        let session = self.session.as_mut().expect("connected above");
        let answer = call(session).map_err(|e| session.locate(e));
        if let Err(error) = &answer {
            if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Connect) {
                // Its server may still be at it: it must end before it acts behind our back.
                self.database.abandoned.lock().push(session.backend());
            }
            if error.breaks_session() || error.is_stale() {
                self.leave();
            }
        }
        answer
    }

    /// Ends what given-up sessions may still be doing, of all seats; answers whether it is over.
    pub(crate) fn end_abandoned(&mut self) -> Result<bool> {
        let database = self.database.clone();
        self.with(|session| database.end_abandoned(session))
    }

    pub(crate) fn leave(&mut self) {
        self.session = None;
        self.counted = None;
    }

    fn connect(&mut self) -> Result<Session> {
        let mut session = self.database.session(self.role, &self.interrupt, &self.setup)?;
        self.database.end_abandoned(&mut session)?;
        Ok(session)
    }
}

/// One open session of a role, counted as long as this value lives.
struct Counted(Arc<Mutex<Vec<(&'static str, Backend)>>>, (&'static str, Backend));

impl Counted {
    fn new(database: &Database, role: &'static str, backend: Backend) -> Self {
        database.open.lock().push((role, backend));
        Self(database.open.clone(), (role, backend))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.0.lock();
        if let Some(place) = open.iter().position(|entry| *entry == self.1) {
            open.swap_remove(place);
        }
    }
}
