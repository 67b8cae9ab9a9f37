//! One connection of the engine, on which every call ends by its deadline.
//! Knows nothing of the tables. All futures that the engine waits for are here.
//!
//! A session that this library opens is a blocking wrapper over tokio-postgres. A stopped server does not react to a
//! cancel request, and does not trip a keepalive. But the wait for it is a future, and a future can be dropped.
//! A session on a connection of the caller's pool uses a `postgres::Client`. Its calls run on a helper thread, which is
//! left behind when the deadline passes (`deadline.rs`). What the session sets is undone before the connection goes
//! back.

use super::deadline;
use super::dial::{ConnectionString, Dialer};
use super::login_process::named_process;
use super::pool::Connection;
use super::tls::Tls;
use crate::db::schema::Schema;
use crate::error::{Error, ErrorKind, Result};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Config, Row, Statement};

/// A parameter that can be sent to another thread together with its call.
pub(crate) type Param = Box<dyn ToSql + Sync + Send>;

/// A statement with the schema inserted. Each session prepares it once, under its name.
pub(crate) struct Query {
    pub(crate) name: &'static str,
    text: String,
}

impl Query {
    pub(crate) fn new(name: &'static str, sql: &str, schema: &Schema) -> Self {
        Self { name, text: schema.fill(sql) }
    }
}

/// Limits or ends the calls and waits of sessions from another thread.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<watch::Sender<InterruptState>>);

#[derive(Clone, Copy, PartialEq)]
enum InterruptState {
    None,
    /// A call has at most this long, counted from this moment or from its start, whichever is later.
    Since(Instant, Duration),
    Over,
}

impl Interrupt {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(InterruptState::None)))
    }

    /// From now on every call has at most `limit`, also a call that is running.
    pub(crate) fn limit(&self, limit: Duration) {
        self.0.send_replace(InterruptState::Since(Instant::now(), limit));
    }

    /// From now on every call of a session with this interrupt returns `Stopped`.
    pub(crate) fn raise(&self) {
        self.0.send_replace(InterruptState::Over);
    }

    pub(crate) fn is_raised(&self) -> bool {
        *self.0.borrow() == InterruptState::Over
    }

    async fn raised(&self) {
        // An error means that the sender is gone, but this value holds it.
        let _ = self.0.subscribe().wait_for(|state| *state == InterruptState::Over).await;
    }

    /// Returns when a call that begins now runs out of time, with the error that ends it. The deadline counts from the
    /// call's last progress, so a long reply over a slow link is not late. The limit of a stop counts from its start.
    async fn runs_out(&self, deadline: Duration, progress: &Progress) -> Error {
        let start = Instant::now();
        let mut state = self.0.subscribe();
        loop {
            let mut limit = progress.last().saturating_duration_since(start) + deadline;
            match *state.borrow_and_update() {
                InterruptState::None => {}
                InterruptState::Since(since, allowed) => {
                    limit = limit.min(since.saturating_duration_since(start) + allowed)
                }
                InterruptState::Over => return stopped(),
            }
            if start.elapsed() >= limit {
                return deadline::missed(deadline.min(limit));
            }
            tokio::select! {
                _ = state.changed() => {}
                () = tokio::time::sleep(limit.saturating_sub(start.elapsed())) => {}
            }
        }
    }
}

/// When bytes last moved on a connection, in either direction.
#[derive(Clone)]
struct Progress(Arc<Mutex<Instant>>);

impl Progress {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn note(&self) {
        *self.0.lock() = Instant::now();
    }

    fn last(&self) -> Instant {
        *self.0.lock()
    }
}

/// How a session is set up, in addition to what every engine session has.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) settings: Vec<(&'static str, String)>,
    /// The channels to listen to.
    pub(crate) channels: Vec<String>,
}

/// How long to wait until a connection is back in its pool.
const RETURN_TIMEOUT: Duration = Duration::from_millis(500);

/// The server process of a session. It can be ended later without ending another process that got the same pid.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Backend {
    pid: i32,
    started: Option<DateTime<Utc>>,
}

/// One connection of one engine thread.
pub(crate) struct Session {
    link: Link,
    statements: HashMap<&'static str, Statement>,
    deadline: Duration,
    interrupt: Interrupt,
    backend: Backend,
    /// The name of the server, for messages.
    target: String,
}

enum Link {
    Own(Box<Own>),
    /// `None` while a call is running, and forever after a call that did not return in time.
    Lent(Option<Box<Loan>>),
}

/// A connection of the caller's pool, and what must be undone before it goes back.
struct Loan {
    connection: Connection,
    /// Each setting that was changed, with its earlier value; `None` is the default.
    settings: Vec<(String, Option<String>)>,
    channels: Vec<String>,
    /// The last call did not succeed, so a transaction may be open.
    unsure: bool,
}

struct Own {
    runtime: tokio::runtime::Runtime,
    /// The process that the server named at login.
    named: i32,
    client: Option<tokio_postgres::Client>,
    /// Drives the socket. Ends when the connection ends.
    driver: tokio::task::JoinHandle<()>,
    progress: Progress,
    inbox: mpsc::Receiver<String>,
}

impl Session {
    /// Connects within `deadline`, including TLS and authentication. `role` becomes part of its application_name.
    pub(crate) fn connect(
        url: &ConnectionString,
        role: &str,
        deadline: Duration,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let (own, target) = url.dial(role, deadline, &mut Directly(interrupt))?;
        let mut session = Self::on(Link::Own(Box::new(own)), deadline, interrupt);
        session.target = target;
        Ok(session)
    }

    /// Takes over a connection of the caller's pool, for the lifetime of the session.
    pub(crate) fn lent(connection: Connection, deadline: Duration, interrupt: &Interrupt) -> Self {
        let loan = Loan { connection, settings: Vec::new(), channels: Vec::new(), unsure: false };
        Self::on(Link::Lent(Some(Box::new(loan))), deadline, interrupt)
    }

    /// A session on which nothing is set yet.
    fn on(link: Link, deadline: Duration, interrupt: &Interrupt) -> Self {
        let backend = Backend { pid: 0, started: None };
        Self {
            link,
            statements: HashMap::new(),
            deadline,
            interrupt: interrupt.clone(),
            backend,
            target: "pg_pool".to_owned(),
        }
    }

    /// Returns the server process that serves this session now. Sets nothing and leaves nothing there.
    pub(crate) fn look(&mut self) -> Result<Backend> {
        let rows = self.ask(include_str!("../sql/session/look.sql"), vec![], |_, _| ())?;
        let row = rows.first().ok_or_else(closed)?;
        Ok(Backend { pid: row.get("pid"), started: row.get("started") })
    }

    /// Whether the server named this process at login. Then no pooler is in between.
    pub(crate) fn is_direct(&self, backend: Backend) -> bool {
        matches!(&self.link, Link::Own(own) if own.named == backend.pid)
    }

    /// Sets what every engine session needs, whatever the database's defaults are, and the settings of `setup`. Returns
    /// `false`, and sets nothing, if `backend` does not serve the session now.
    pub(crate) fn set_up(&mut self, backend: Backend, setup: &Setup) -> Result<bool> {
        let limit = self.deadline.as_millis();
        let (limit, lock_limit) = (limit.to_string(), (limit / 2).to_string());
        let common = [
            ("default_transaction_isolation", "read committed"),
            ("default_transaction_deferrable", "off"),
            ("row_security", "on"),
            ("statement_timeout", &*limit),
            ("lock_timeout", &*lock_limit),
            ("idle_in_transaction_session_timeout", &*limit),
            ("idle_session_timeout", "0"),
            ("transaction_timeout", "0"),
            ("client_min_messages", "warning"),
        ];
        let is_own = |name: &str| setup.settings.iter().any(|(own, _)| *own == name);
        let common = common.into_iter().filter(|(name, _)| !is_own(name));
        let own = setup.settings.iter().map(|(name, value)| (*name, value.as_str()));
        let (names, values): (Vec<String>, Vec<String>) =
            common.chain(own).map(|(name, value)| (name.to_owned(), value.to_owned())).unzip();
        let params: Vec<(Param, Type)> = vec![
            (Box::new(backend.pid), Type::INT4),
            (Box::new(names), Type::TEXT_ARRAY),
            (Box::new(values), Type::TEXT_ARRAY),
        ];
        let rows = self.ask(include_str!("../sql/session/session.sql"), params, |loan, rows| {
            loan.settings = rows.iter().map(|row| (row.get("name"), row.get("before"))).collect();
        })?;
        if rows.is_empty() {
            return Ok(false);
        }
        self.backend = backend;
        if let Link::Lent(Some(loan)) = &mut self.link {
            loan.channels.clone_from(&setup.channels);
        }
        if !setup.channels.is_empty() {
            let listen = setup.channels.iter().map(|channel| format!("listen \"{channel}\""));
            self.batch(&listen.collect::<Vec<_>>().join("; "))?;
        }
        Ok(true)
    }

    /// Runs one statement, and leaves nothing prepared. `note` records on a loan what the statement did, even if it is
    /// late.
    fn ask(&mut self, sql: &'static str, params: Vec<(Param, Type)>, note: fn(&mut Loan, &[Row])) -> Result<Vec<Row>> {
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                within(&own.runtime, deadline, &interrupt, &own.progress, client.query_typed(sql, &typed(&params)))
            }
            Link::Lent(lent) => lend(lent, deadline, move |loan| {
                let rows = loan.connection.query_typed(sql, &typed(&params))?;
                note(loan, &rows);
                Ok(rows)
            }),
        }
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// The name of the server, for messages.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// Adds the name of the server to an error of the connection.
    pub(crate) fn locate(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Connect | ErrorKind::Timeout => error.context(format_args!("on {}", self.target)),
            _ => error,
        }
    }

    /// Ends the server processes of abandoned sessions, so that their calls change nothing later. Returns those that
    /// still exist.
    pub(crate) fn end_backends(&mut self, old: &[Backend]) -> Result<Vec<Backend>> {
        let query = Query { name: "end_backend", text: include_str!("../sql/session/end_backend.sql").to_owned() };
        let (pids, started): (Vec<i32>, Vec<_>) = old.iter().map(|backend| (backend.pid, backend.started)).unzip();
        let rows = self.query(&query, vec![Box::new(pids), Box::new(started)])?;
        Ok(rows.iter().map(|row| Backend { pid: row.get("pid"), started: row.get("started") }).collect())
    }

    /// Runs statements without parameters, in one round trip.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<()> {
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                within(&own.runtime, deadline, &interrupt, &own.progress, client.batch_execute(sql))
            }
            Link::Lent(lent) => {
                let sql = sql.to_owned();
                lend(lent, deadline, move |loan| loan.connection.batch_execute(&sql))
            }
        }
    }

    /// Runs one statement. Prepares it at its first use in this session.
    pub(crate) fn query(&mut self, query: &Query, params: Vec<Param>) -> Result<Vec<Row>> {
        let statement = self.prepared(query)?;
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                let params = borrow(&params);
                within(&own.runtime, deadline, &interrupt, &own.progress, client.query(&statement, &params))
            }
            Link::Lent(lent) => lend(lent, deadline, move |loan| loan.connection.query(&statement, &borrow(&params))),
        }
    }

    /// Runs two statements in one transaction and one round trip. Returns the rows of the second one.
    pub(crate) fn query_after(
        &mut self,
        (first, first_params): (&Query, Vec<Param>),
        (second, params): (&Query, Vec<Param>),
    ) -> Result<Vec<Row>> {
        let (first, second) = (self.prepared(first)?, self.prepared(second)?);
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                let (first_params, params) = (borrow(&first_params), borrow(&params));
                within(&own.runtime, deadline, &interrupt, &own.progress, async {
                    // A failed statement fails those that were sent after it, and the commit ends the transaction. So the
                    // first error says what is wrong.
                    let (begun, before, rows, ended) = tokio::join!(
                        client.batch_execute("begin"),
                        client.query(&first, &first_params),
                        client.query(&second, &params),
                        client.batch_execute("commit"),
                    );
                    begun?;
                    before?;
                    let rows = rows?;
                    ended.map(|()| rows)
                })
            }
            Link::Lent(lent) => lend(lent, deadline, move |loan| {
                let client = &mut loan.connection;
                let mut transaction = client.transaction()?;
                transaction.query(&first, &borrow(&first_params))?;
                let rows = transaction.query(&second, &borrow(&params))?;
                transaction.commit()?;
                Ok(rows)
            }),
        }
    }

    /// The prepared form of a statement in this session.
    fn prepared(&mut self, query: &Query) -> Result<Statement> {
        if let Some(known) = self.statements.get(query.name) {
            return Ok(known.clone());
        }
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        let statement = match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                within(&own.runtime, deadline, &interrupt, &own.progress, client.prepare(&query.text))
            }
            Link::Lent(lent) => {
                let text = query.text.clone();
                lend(lent, deadline, move |loan| loan.connection.prepare(&text))
            }
        }?;
        self.statements.insert(query.name, statement.clone());
        Ok(statement)
    }

    /// As [`query`](Self::query), but in a transaction of its own, and with texts in the database's own encoding. For
    /// results with a character that UTF-8 does not have. Texts among the parameters must be ASCII.
    pub(crate) fn query_unconverted(&mut self, query: &Query, params: Vec<Param>) -> Result<Vec<Row>> {
        self.batch("begin; set local client_encoding = 'SQL_ASCII'")?;
        let answer = self.query(query, params);
        match &answer {
            Ok(_) => self.batch("commit")?,
            Err(error) if !error.breaks_session() => self.batch("rollback")?,
            Err(_) => {}
        }
        answer
    }

    /// Waits for a notification. Returns its channel, or `None` if none arrives in time.
    ///
    /// # Errors
    /// `Stopped` as soon as the interrupt is raised; `Connect` if the connection has ended.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Option<String>> {
        match &mut self.link {
            Link::Own(own) => {
                let (runtime, inbox, interrupt) = (&own.runtime, &mut own.inbox, &self.interrupt);
                runtime.block_on(async {
                    tokio::select! {
                        biased;
                        () = interrupt.raised() => Err(stopped()),
                        channel = inbox.recv() => channel.map(Some).ok_or_else(closed),
                        () = tokio::time::sleep(timeout) => Ok(None),
                    }
                })
            }
            Link::Lent(lent) => {
                let loan = lent.as_mut().ok_or_else(closed)?;
                wait_lent(&mut loan.connection, timeout, &self.interrupt)
            }
        }
    }
}

/// Waits in slices, because another thread cannot wake up a lent client.
fn wait_lent(client: &mut Connection, timeout: Duration, interrupt: &Interrupt) -> Result<Option<String>> {
    use postgres::fallible_iterator::FallibleIterator;
    const SLICE: Duration = Duration::from_millis(100);
    let end = Instant::now() + timeout;
    loop {
        if interrupt.is_raised() {
            return Err(stopped());
        }
        let left = end.saturating_duration_since(Instant::now());
        let next = client.notifications().timeout_iter(left.min(SLICE)).next()?;
        if let Some(notification) = next {
            return Ok(Some(notification.channel().to_owned()));
        }
        if client.is_closed() {
            return Err(closed());
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

/// Connects on the calling thread. An attempt that is late or interrupted is dropped.
struct Directly<'a>(&'a Interrupt);

impl Dialer for Directly<'_> {
    type Line = Own;

    fn resolve(&mut self, host: &str, port: u16, limit: Duration) -> Result<Vec<IpAddr>> {
        let runtime = runtime()?;
        let found = within(&runtime, limit, self.0, &Progress::new(), async {
            let found = tokio::net::lookup_host((host, port)).await;
            found.map_err(|e| Error::new(ErrorKind::Connect, format!("the name cannot be looked up: {e}")).caused_by(e))
        });
        let found = found.map(|found| found.map(|address| address.ip()).collect());
        // A look-up cannot be ended, and dropping the runtime would wait for it.
        runtime.shutdown_background();
        found
    }

    fn connect(&mut self, config: &Config, tls: &Tls, _target: &str, limit: Duration) -> Result<Own> {
        let runtime = runtime()?;
        let progress = Progress::new();
        let (client, mut connection) = within(&runtime, limit, self.0, &progress, config.connect(tls.clone()))?;
        // Notifications only wake up the reader. If they are not read in time, any one of them is enough.
        let (outbox, inbox) = mpsc::channel(64);
        let moved = progress.clone();
        // Runs when a call begins, and then each time the socket sends or receives bytes.
        let driver = runtime.spawn(std::future::poll_fn(move |cx| {
            moved.note();
            loop {
                match std::task::ready!(connection.poll_message(cx)) {
                    Some(Ok(AsyncMessage::Notification(notification))) => {
                        let _ = outbox.try_send(notification.channel().to_owned());
                    }
                    Some(Ok(_)) => {}
                    None | Some(Err(_)) => return Poll::Ready(()),
                }
            }
        }));
        let named = runtime.block_on(named_process(&client));
        Ok(Own { runtime, named, client: Some(client), driver, progress, inbox })
    }
}

/// Connects within `limit`, and closes the connection.
pub(super) fn probe(config: &Config, tls: &Tls, limit: Duration) -> Result<()> {
    within(&runtime()?, limit, &Interrupt::new(), &Progress::new(), async {
        let (client, connection) = config.connect(tls.clone()).await?;
        drop(client);
        connection.await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::new(ErrorKind::Connect, format!("cannot open another session: {e}")).caused_by(e))
}

impl Drop for Own {
    fn drop(&mut self) {
        // Dropping the client sends the end of the session. The wait for the server is short, because it may be
        // stopped.
        drop(self.client.take());
        let (runtime, driver) = (&self.runtime, &mut self.driver);
        let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_millis(100), driver).await });
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let Self::Lent(lent) = self else { return };
        if let Some(loan) = lent.take() {
            // What is not undone in time is undone later, on the helper thread.
            let _ = deadline::call(RETURN_TIMEOUT, move || drop(loan));
        }
    }
}

impl Drop for Loan {
    /// Restores the connection to the state in which it was lent. If that fails, ends its session, and the pool opens
    /// another.
    fn drop(&mut self) {
        let client = &mut *self.connection;
        if client.is_closed() || (self.settings.is_empty() && self.channels.is_empty()) {
            return;
        }
        if self.unsure {
            let _ = client.batch_execute("rollback");
        }
        let unlisten = self.channels.iter().map(|channel| format!("unlisten \"{channel}\""));
        let unlisten = unlisten.collect::<Vec<_>>().join("; ");
        let (names, values): (Vec<&str>, Vec<Option<&str>>) =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_deref())).unzip();
        let undone = client.batch_execute(&unlisten).and_then(|()| {
            let sql = include_str!("../sql/session/restore.sql");
            client.query_typed(sql, &[(&names, Type::TEXT_ARRAY), (&values, Type::TEXT_ARRAY)])
        });
        if undone.is_err() {
            let _ = client.batch_execute("select pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())");
        }
    }
}

fn borrow(params: &[Param]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect()
}

fn typed(params: &[(Param, Type)]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    params.iter().map(|(param, kind)| (&**param as &(dyn ToSql + Sync), kind.clone())).collect()
}

/// Runs a future of a session until it returns, makes no progress for its deadline, or a stop interrupts it.
fn within<T, E: Into<Error>>(
    runtime: &tokio::runtime::Runtime,
    deadline: Duration,
    interrupt: &Interrupt,
    progress: &Progress,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            answer = call => answer.map_err(Into::into),
            error = interrupt.runs_out(deadline, progress) => Err(error),
        }
    })
}

/// Runs a call of a lent client on a helper thread. If the call is late, the thread keeps the client.
fn lend<T: Send + 'static>(
    lent: &mut Option<Box<Loan>>,
    deadline: Duration,
    call: impl FnOnce(&mut Loan) -> Result<T, postgres::Error> + Send + 'static,
) -> Result<T> {
    let mut loan = lent.take().ok_or_else(closed)?;
    let (loan, answer) = deadline::call(deadline, move || {
        loan.unsure = true;
        let answer = call(&mut loan);
        loan.unsure = answer.is_err();
        (loan, answer)
    })?;
    *lent = Some(loan);
    answer.map_err(Error::from)
}

fn closed() -> Error {
    Error::new(ErrorKind::Connect, "the connection was closed")
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "the worker is stopping")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Database;
    use crate::devdb::{DevDb, Options};
    use std::process::Command;

    const DEADLINE: Duration = Duration::from_secs(1);

    /// Runs `call` on a session whose server process is stopped. Returns its error and how long it took.
    fn stopped_under(call: impl FnOnce(&mut Session, &Interrupt) -> Result<()>) -> (Error, Duration) {
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let database = Database::open(&db.url(), 1, DEADLINE).unwrap();
        let interrupt = Interrupt::new();
        let mut session = database.session("test", &interrupt, &Setup::default()).unwrap();
        let pid = session.backend.pid.to_string();
        let signal = |name: &str| assert!(Command::new("kill").arg(name).arg(&pid).status().unwrap().success());
        signal("-STOP");
        let start = Instant::now();
        let error = call(&mut session, &interrupt).unwrap_err();
        let took = start.elapsed();
        signal("-CONT");
        (error, took)
    }

    #[test]
    fn a_call_to_a_stopped_server_ends_by_its_deadline() {
        let (error, took) = stopped_under(|session, _| session.batch("select 1"));
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(took >= DEADLINE && took < DEADLINE + Duration::from_millis(200), "{took:?}");
    }

    #[test]
    fn a_slow_reply_is_read_while_its_bytes_arrive() {
        let deadline = 2 * DEADLINE;
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let database = Database::open(&db.url(), 1, deadline).unwrap();
        let mut session = database.session("test", &Interrupt::new(), &Setup::default()).unwrap();
        session.batch("set statement_timeout = 0").unwrap();
        let slow = "select repeat('x', 100000), pg_sleep(0.25) from generate_series(1, 12)";
        let query = Query { name: "slow", text: slow.to_owned() };
        let start = Instant::now();
        assert_eq!(session.query(&query, vec![]).unwrap().len(), 12);
        assert!(start.elapsed() > deadline, "the reply must outlast the deadline");
        let query = Query { name: "silent", text: "select pg_sleep(60)".to_owned() };
        assert_eq!(session.query(&query, vec![]).unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_stop_shortens_a_running_call() {
        let state = Duration::from_millis(300);
        let (error, took) = stopped_under(|session, interrupt| {
            interrupt.limit(state);
            session.batch("select 1")
        });
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(took < state + Duration::from_millis(200), "{took:?}");
    }
}
