//! One connection of the engine, on which every call ends by its deadline.
//! Knows nothing of the tables. The only futures of the house live here.
//!
//! A session of our own is a blocking wrapper over tokio-postgres: a stopped server answers no
//! cancel and trips no keepalive, but the wait for it is a future, and a future can be dropped.
//! A session lent by the caller's pool is a `postgres::Client`; its calls run on a helper thread,
//! which is left behind when the deadline passes (`deadline.rs`).

use super::deadline;
use super::pool::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Schema;
use chrono::{DateTime, Utc};
use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Row, Statement};

/// A parameter that may travel to another thread with the call that carries it.
pub(crate) type Param = Box<dyn ToSql + Sync + Send>;

/// A statement with the schema filled in; prepared once per session under its name.
pub(crate) struct Query {
    pub(crate) name: &'static str,
    text: String,
}

impl Query {
    pub(crate) fn new(name: &'static str, sql: &str, schema: &Schema) -> Self {
        Self { name, text: schema.fill(sql) }
    }
}

/// Shortens or ends the calls and waits of sessions from another thread.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<watch::Sender<Hurry>>);

#[derive(Clone, Copy, PartialEq)]
enum Hurry {
    None,
    /// Calls have no more than this, counted from this moment or from their start.
    Since(Instant, Duration),
    Over,
}

impl Interrupt {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(Hurry::None)))
    }

    /// From now on every call, also one under way, has no more than `limit`.
    pub(crate) fn hurry(&self, limit: Duration) {
        self.0.send_replace(Hurry::Since(Instant::now(), limit));
    }

    /// From now on every call of a session that carries this interrupt answers `Stopped`.
    pub(crate) fn raise(&self) {
        self.0.send_replace(Hurry::Over);
    }

    pub(crate) fn is_raised(&self) -> bool {
        *self.0.borrow() == Hurry::Over
    }

    async fn raised(&self) {
        // An error means that the sender is gone, and we hold one.
        let _ = self.0.subscribe().wait_for(|hurry| *hurry == Hurry::Over).await;
    }

    /// Answers when a call that begins now has had its time, and with which error it ends.
    async fn runs_out(&self, deadline: Duration) -> Error {
        let (start, mut limit) = (Instant::now(), deadline);
        let mut hurry = self.0.subscribe();
        loop {
            match *hurry.borrow_and_update() {
                Hurry::None => {}
                Hurry::Since(since, patience) => limit = limit.min(since.saturating_duration_since(start) + patience),
                Hurry::Over => return stopped(),
            }
            tokio::select! {
                _ = hurry.changed() => {}
                () = tokio::time::sleep(limit.saturating_sub(start.elapsed())) => return deadline::missed(limit),
            }
        }
    }
}

/// Which server process serves a session; enough to end it later without hitting a successor of its pid.
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
}

enum Link {
    Own(Box<Own>),
    /// `None` while a call is on its way, and for ever after one that did not come back.
    Lent(Option<Connection>),
}

struct Own {
    runtime: tokio::runtime::Runtime,
    client: Option<tokio_postgres::Client>,
    /// Drives the socket; ends when the connection does.
    driver: tokio::task::JoinHandle<()>,
    inbox: mpsc::Receiver<String>,
}

impl Session {
    /// Connects, TLS and authentication included, within `deadline`.
    pub(crate) fn connect(
        config: &tokio_postgres::Config,
        tls: &super::tls::Tls,
        deadline: Duration,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(ErrorKind::Connect, format!("cannot open another session: {e}")).caused_by(e))?;
        let (client, mut connection) = match within(&runtime, deadline, interrupt, config.connect(tls.clone())) {
            Ok(both) => both,
            Err(error) => {
                // A look-up of the host's name cannot be ended; dropping the runtime would wait for it.
                runtime.shutdown_background();
                return Err(error);
            }
        };
        // Notifications only wake: when nobody reads them in time, any that is kept is as good.
        let (outbox, inbox) = mpsc::channel(64);
        let driver = runtime.spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    let _ = outbox.try_send(notification.channel().to_owned());
                }
            }
        });
        let own = Own { runtime, client: Some(client), driver, inbox };
        Self::settle_in(Link::Own(Box::new(own)), deadline, interrupt)
    }

    /// Takes over a connection of the caller's pool, for good.
    pub(crate) fn lent(connection: Connection, deadline: Duration, interrupt: &Interrupt) -> Result<Self> {
        Self::settle_in(Link::Lent(Some(connection)), deadline, interrupt)
    }

    /// The settings that every engine session has, whatever the database's defaults say.
    fn settle_in(link: Link, deadline: Duration, interrupt: &Interrupt) -> Result<Self> {
        let mut session = Self {
            link,
            statements: HashMap::new(),
            deadline,
            interrupt: interrupt.clone(),
            backend: Backend { pid: 0, started: None },
        };
        let setup = Query { name: "session", text: include_str!("../sql/session.sql").to_owned() };
        let limit = deadline.as_millis() as i64;
        let rows = session.query(&setup, vec![Box::new(limit.to_string()), Box::new((limit / 2).to_string())])?;
        if let Some(row) = rows.first() {
            session.backend = Backend { pid: row.get("pid"), started: row.get("started") };
        }
        Ok(session)
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Ends the server processes of sessions that we gave up, so that nothing they were asked for
    /// happens later. Answers those that are still there.
    pub(crate) fn end_backends(&mut self, old: &[Backend]) -> Result<Vec<Backend>> {
        let query = Query { name: "end_backend", text: include_str!("../sql/end_backend.sql").to_owned() };
        let (pids, started): (Vec<i32>, Vec<_>) = old.iter().map(|backend| (backend.pid, backend.started)).unzip();
        let rows = self.query(&query, vec![Box::new(pids), Box::new(started)])?;
        Ok(rows.iter().map(|row| Backend { pid: row.get("pid"), started: row.get("started") }).collect())
    }

    /// Runs statements without parameters, one round trip for all.
    pub(crate) fn batch(&mut self, sql: &str) -> Result<()> {
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                within(&own.runtime, deadline, &interrupt, client.batch_execute(sql))
            }
            Link::Lent(lent) => {
                let sql = sql.to_owned();
                lend(lent, deadline, move |client| client.batch_execute(&sql))
            }
        }
    }

    /// Runs one statement, prepared at its first use in this session.
    pub(crate) fn query(&mut self, query: &Query, params: Vec<Param>) -> Result<Vec<Row>> {
        let (deadline, interrupt) = (self.deadline, self.interrupt.clone());
        let known = self.statements.get(query.name).cloned();
        let (statement, rows) = match &mut self.link {
            Link::Own(own) => {
                let client = own.client.as_ref().expect("taken only by drop");
                within(&own.runtime, deadline, &interrupt, async {
                    let statement = match known {
                        Some(statement) => statement,
                        None => client.prepare(&query.text).await?,
                    };
                    let rows = client.query(&statement, &borrow(&params)).await?;
                    Ok((statement, rows))
                })
            }
            Link::Lent(lent) => {
                let text = query.text.clone();
                lend(lent, deadline, move |client| {
                    let statement = match known {
                        Some(statement) => statement,
                        None => client.prepare(&text)?,
                    };
                    let rows = client.query(&statement, &borrow(&params))?;
                    Ok((statement, rows))
                })
            }
        }?;
        self.statements.insert(query.name, statement);
        Ok(rows)
    }

    /// As [`query`](Self::query), in a transaction of its own, with the texts in the database's own encoding: for a
    /// character that UTF-8 does not have. Texts among the parameters must be ASCII.
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

    /// Waits for a notification; `None` when none came in time.
    ///
    /// # Errors
    /// `Stopped` as soon as the interrupt is raised, `Connect` when the connection has ended.
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
            Link::Lent(lent) => wait_lent(lent.as_mut().ok_or_else(closed)?, timeout, &self.interrupt),
        }
    }
}

/// A lent client cannot be woken from outside, so it waits in slices.
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

impl Drop for Own {
    fn drop(&mut self) {
        // Dropping the client says goodbye; a server that does not listen is not waited for.
        drop(self.client.take());
        let (runtime, driver) = (&self.runtime, &mut self.driver);
        let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_millis(100), driver).await });
    }
}

fn borrow(params: &[Param]) -> Vec<&(dyn ToSql + Sync)> {
    params.iter().map(|param| &**param as &(dyn ToSql + Sync)).collect()
}

/// Runs a future of a session until it answers, its deadline passes, or a stop interrupts it.
fn within<T>(
    runtime: &tokio::runtime::Runtime,
    deadline: Duration,
    interrupt: &Interrupt,
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            answer = call => answer.map_err(Error::from),
            error = interrupt.runs_out(deadline) => Err(error),
        }
    })
}

/// Runs a call of a lent client on a helper thread; a call that is late takes the client with it.
fn lend<T: Send + 'static>(
    lent: &mut Option<Connection>,
    deadline: Duration,
    call: impl FnOnce(&mut postgres::Client) -> Result<T, postgres::Error> + Send + 'static,
) -> Result<T> {
    let mut connection = lent.take().ok_or_else(closed)?;
    let (connection, answer) = deadline::call(deadline, move || {
        let answer = call(&mut connection);
        (connection, answer)
    })?;
    *lent = Some(connection);
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

    /// Runs `call` on a session whose server process is stopped; answers its error and how long it took.
    fn stopped_under(call: impl FnOnce(&mut Session, &Interrupt) -> Result<()>) -> (Error, Duration) {
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let database = Database::open(&db.url(), 1, DEADLINE).unwrap();
        let interrupt = Interrupt::new();
        let mut session = database.session("test", &interrupt).unwrap();
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
    fn a_call_under_way_ends_sooner_when_a_stop_is_in_a_hurry() {
        let hurry = Duration::from_millis(300);
        let (error, took) = stopped_under(|session, interrupt| {
            interrupt.hurry(hurry);
            session.batch("select 1")
        });
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(took < hurry + Duration::from_millis(200), "{took:?}");
    }
}
