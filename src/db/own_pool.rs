//! This library's own pool of blocking `postgres` clients for the handlers. Opens clients as they are needed. Checks a
//! client before it is lent again, unless a call on it has just succeeded. If the database refuses, the error has the
//! database's text. Knows nothing of the tables.
//!
//! r2d2's pool is not used, because its threads wait by parking_lot (see `lock.rs`). A forked child with a pool of its
//! own could then wait forever.

use super::deadline;
use super::dial::{ConnectionString, Dialer};
use super::pool::{Connection, ConnectionPool, Lend, exhausted};
use super::session::probe;
use super::tls::Tls;
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::held;
use log::warn;
use postgres::Client;
use std::collections::HashSet;
use std::net::{IpAddr, ToSocketAddrs};
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};
use tokio_postgres::Config;

/// How long to wait for the end of a session that is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// A client whose last call succeeded this recently is lent again without a check, which would cost a round trip.
const TRUSTED_TIME: Duration = Duration::from_millis(1);

/// A client that is idle for this long is closed.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// A client of this age is not lent again: what the server keeps for a session only grows.
const LIFETIME: Duration = Duration::from_secs(1800);

/// The pool. When it is dropped, it closes the idle clients. Lent clients are closed when they return.
pub(crate) struct OwnPool(Arc<PoolInner>);

struct PoolInner {
    url: Arc<ConnectionString>,
    size: u32,
    idle_time: Duration,
    state: Mutex<State>,
    /// Signals that a client is idle, or that another one may be opened.
    freed: Condvar,
    /// Signals to gw-pool that the pool is dropped.
    closed: Condvar,
    /// Whether the last close was late. If so, the pool waits for no close until the server replies again.
    silent: AtomicBool,
    /// The servers that did not reply to the last attempt in time.
    late: Mutex<HashSet<String>>,
}

#[derive(Default)]
struct State {
    /// The clients that are not lent, the longest unused first.
    idle: Vec<IdleConnection>,
    /// How many clients there are, lent or not (`open`), and how many are being opened (`opening`).
    open: u32,
    opening: u32,
    /// Whether the thread gw-pool runs.
    has_thread: bool,
    closed: bool,
}

/// A client of the pool.
struct IdleConnection {
    client: Client,
    born: Instant,
    /// Since when it is not lent.
    idle: Instant,
    /// When the last call on it succeeded, if that is known.
    succeeded: Option<Instant>,
}

impl OwnPool {
    pub(crate) fn new(url: &Arc<ConnectionString>, size: u32) -> Self {
        Self(Arc::new(PoolInner {
            url: url.clone(),
            size,
            idle_time: IDLE_TIME,
            state: Mutex::default(),
            freed: Condvar::new(),
            closed: Condvar::new(),
            silent: AtomicBool::new(false),
            late: Mutex::default(),
        }))
    }
}

impl ConnectionPool for OwnPool {
    fn get(&self, timeout: Duration) -> Result<Connection> {
        let inner = &self.0;
        let until = Instant::now() + timeout;
        let left = || until.saturating_duration_since(Instant::now());
        let mut pause = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut refusal = None;
        let mut next_try = Instant::now();
        let mut state = inner.lock();
        loop {
            if let Some(mut kept) = state.idle.pop() {
                drop(state);
                // Keeps time for another client, in case this one does not reply.
                if inner.answers(&mut kept, left() / 4) {
                    return Ok(inner.lend(kept));
                }
                inner.close(kept.client, Duration::ZERO);
                state = inner.lock();
                inner.make_room(&mut state);
            } else if state.open + state.opening < inner.size && next_try <= Instant::now() {
                state.opening += 1;
                drop(state);
                let opened = inner.connect(left());
                state = inner.lock();
                state.opening -= 1;
                match opened {
                    Ok(kept) => {
                        state.open += 1;
                        return Ok(inner.lend(kept));
                    }
                    Err(error) => {
                        refusal = Some(error);
                        next_try = Instant::now() + pause.next();
                        inner.freed.notify_one();
                    }
                }
            } else {
                let wait = if state.open + state.opening < inner.size {
                    left().min(next_try.saturating_duration_since(Instant::now()))
                } else {
                    left()
                };
                state = held(inner.freed.wait_timeout(state, wait)).0;
            }
            if left().is_zero() {
                // `freed` may have woken this thread just now. It does not take the client, so it wakes another one.
                inner.freed.notify_one();
                return Err(match refusal {
                    Some(refusal) => {
                        let text = exhausted(timeout, inner.size, format!("the last attempt failed: {refusal}"));
                        refusal.with_message(text.to_string())
                    }
                    None => exhausted(timeout, inner.size, "all are lent"),
                });
            }
        }
    }

    fn max_size(&self) -> u32 {
        self.0.size
    }

    fn open_connections(&self) -> Option<u32> {
        Some(self.0.lock().open)
    }
}

impl Drop for OwnPool {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let idle = std::mem::take(&mut state.idle);
        state.open -= idle.len() as u32;
        self.0.closed.notify_all();
        drop(state);
        idle.into_iter().for_each(|kept| self.0.close(kept.client, CLOSE_TIMEOUT));
    }
}

impl PoolInner {
    fn lock(&self) -> MutexGuard<'_, State> {
        held(self.state.lock())
    }

    fn connect(&self, timeout: Duration) -> Result<IdleConnection> {
        let (client, _) = self.url.dial("handler", timeout, &mut OnHelpers(self))?;
        self.silent.store(false, Ordering::Relaxed);
        let now = Instant::now();
        Ok(IdleConnection { client, born: now, idle: now, succeeded: None })
    }

    /// Whether a call on the client succeeded a moment ago, or a check succeeds now.
    fn answers(&self, kept: &mut IdleConnection, timeout: Duration) -> bool {
        if kept.client.is_closed() {
            return false;
        }
        if kept.succeeded.is_some_and(|at| at.elapsed() < TRUSTED_TIME) {
            return true;
        }
        let answers = kept.client.is_valid(timeout.min(Duration::from_secs(2))).is_ok();
        if answers {
            self.silent.store(false, Ordering::Relaxed);
        }
        answers
    }

    fn lend(self: &Arc<Self>, kept: IdleConnection) -> Connection {
        let kept = IdleConnection { succeeded: None, ..kept };
        Connection(Box::new(Lent { kept: Some(kept), inner: self.clone() }))
    }

    /// Takes a client back. A waiting thread gets it at once.
    fn take_back(self: &Arc<Self>, kept: IdleConnection) {
        let mut state = self.lock();
        if state.closed || kept.client.is_closed() || kept.born.elapsed() >= LIFETIME {
            self.make_room(&mut state);
            drop(state);
            return self.close(kept.client, CLOSE_TIMEOUT);
        }
        state.idle.push(IdleConnection { idle: Instant::now(), ..kept });
        self.freed.notify_one();
        if !state.has_thread {
            let inner = self.clone();
            let spawned = thread::Builder::new().name("gw-pool".into()).spawn(move || inner.close_idle());
            state.has_thread = spawned.inspect_err(|error| warn!(error:%; "cannot start thread gw-pool")).is_ok();
        }
    }

    /// Counts a client as closed, so that another one may be opened.
    fn make_room(&self, state: &mut State) {
        state.open -= 1;
        self.freed.notify_one();
    }

    /// Closes a client. A close waits for the server, and for a reply that is still due, without a deadline. So the
    /// client is dropped on another thread, which is left behind when it is late.
    fn close(&self, client: Client, timeout: Duration) {
        let timeout = if self.silent.load(Ordering::Relaxed) { Duration::ZERO } else { timeout };
        if deadline::call(timeout, move || drop(client)).is_err() {
            self.silent.store(true, Ordering::Relaxed);
        }
    }

    /// The thread gw-pool: closes clients that stay idle, and ends when none is idle.
    fn close_idle(&self) {
        deadline::HELPER_BEGINS.get().inspect(|begins| begins());
        let mut state = self.lock();
        loop {
            match state.idle.first().map(|kept| kept.idle.elapsed()) {
                Some(age) if age >= self.idle_time => {
                    let kept = state.idle.remove(0);
                    self.make_room(&mut state);
                    drop(state);
                    self.close(kept.client, CLOSE_TIMEOUT);
                    state = self.lock();
                }
                // If the pool is dropped meanwhile, no client is idle, and none becomes idle.
                Some(age) => state = held(self.closed.wait_timeout(state, self.idle_time - age)).0,
                None => {
                    state.has_thread = false;
                    return;
                }
            }
        }
    }
}

/// Connects on helper threads. A thread that is late is left behind.
struct OnHelpers<'a>(&'a PoolInner);

impl Dialer for OnHelpers<'_> {
    type Line = Client;

    fn resolve(&mut self, host: &str, port: u16, limit: Duration) -> Result<Vec<IpAddr>> {
        let name = (host.to_owned(), port);
        let found = deadline::call(limit, move || (name.0.as_str(), name.1).to_socket_addrs())?;
        let found = found
            .map_err(|e| Error::new(ErrorKind::Connect, format!("the name cannot be looked up: {e}")).caused_by(e))?;
        Ok(found.map(|address| address.ip()).collect())
    }

    fn connect(&mut self, config: &Config, tls: &Tls, target: &str, limit: Duration) -> Result<Client> {
        let late = || held(self.0.late.lock());
        let until = Instant::now() + limit;
        // Each late attempt keeps a thread until its server replies. So a server that was late is first probed by a
        // connection that can be given up.
        let was_late = late().contains(target);
        if was_late {
            probe(config, tls, limit)?;
            late().remove(target);
        }
        let (config, tls) = (postgres::Config::from(config.clone()), tls.clone());
        let left = until.saturating_duration_since(Instant::now());
        let opened = deadline::call(left, move || config.connect(tls).map_err(Error::from));
        // A server that has just replied to the probe is only slow. The next attempt has its whole time, and this
        // thread ends.
        if opened.is_err() && !was_late {
            late().insert(target.to_owned());
        }
        opened?
    }
}

/// A lent client, until it is dropped.
struct Lent {
    kept: Option<IdleConnection>,
    inner: Arc<PoolInner>,
}

impl Deref for Lent {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.kept.as_ref().expect("taken only by drop").client
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.kept.as_mut().expect("taken only by drop").client
    }
}

impl Lend for Lent {
    fn call_succeeded(&mut self) {
        self.kept.as_mut().expect("taken only by drop").succeeded = Some(Instant::now());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.inner.take_back(self.kept.take().expect("taken only here"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devdb::{DevDb, Options};
    use std::net::{TcpListener, TcpStream};

    const SOON: Duration = Duration::from_secs(10);

    fn pool(size: u32) -> (DevDb, OwnPool) {
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let url = Arc::new(ConnectionString::new(&db.url()).unwrap());
        (db, OwnPool::new(&url, size))
    }

    fn pid(connection: &mut Connection) -> i32 {
        connection.query_one("select pg_backend_pid()", &[]).unwrap().get(0)
    }

    #[test]
    fn a_returned_client_goes_to_a_waiting_thread() {
        let (_db, pool) = pool(1);
        let mut first = pool.get(SOON).unwrap();
        let pid_of_first = pid(&mut first);
        let error = pool.get(Duration::from_millis(50)).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.to_string().contains("in a pool of 1"), "{error}");
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pid(&mut pool.get(SOON).unwrap()));
            drop(first);
            assert_eq!(waiting.join().unwrap(), pid_of_first);
        });
        assert_eq!(pool.open_connections(), Some(1));
    }

    #[test]
    fn a_client_whose_session_ended_is_not_lent_again() {
        let (db, pool) = pool(2);
        let mut held = pool.get(SOON).unwrap();
        let lost = pid(&mut pool.get(SOON).unwrap());
        held.execute("select pg_terminate_backend($1, 10000)", &[&lost]).unwrap();
        assert_ne!(pid(&mut pool.get(SOON).unwrap()), lost);
        assert_eq!(pool.open_connections(), Some(2));
        drop(db);
    }

    #[test]
    fn a_client_is_checked_unless_its_last_call_succeeded_a_moment_ago() {
        let (db, pool) = pool(1);
        let mut watcher = Client::connect(&db.url(), postgres::NoTls).unwrap();
        let mut lent = pool.get(SOON).unwrap();
        let first = pid(&mut lent);
        lent.0.call_succeeded();
        drop(lent);
        assert!(pool.0.lock().idle[0].succeeded.is_some());
        // A check sends an empty statement.
        let mut is_checked = |succeeded| {
            pool.0.lock().idle[0].succeeded = succeeded;
            let mut lent = pool.get(SOON).unwrap();
            let sql = "select query = '' from pg_stat_activity where pid = $1";
            let is_checked: bool = watcher.query_one(sql, &[&first]).unwrap().get(0);
            assert_eq!(pid(&mut lent), first);
            is_checked
        };
        // A time in the future is less than a millisecond ago, however slow the machine is.
        assert!(!is_checked(Some(Instant::now() + SOON * 100)));
        assert!(pool.0.lock().idle[0].succeeded.is_none(), "the call after that is not known to have succeeded");
        assert!(is_checked(None));
        assert!(is_checked(Some(Instant::now() - Duration::from_millis(1))));
        watcher.execute("select pg_terminate_backend($1, 10000)", &[&first]).unwrap();
        pool.0.lock().idle[0].succeeded = Some(Instant::now() - Duration::from_millis(1));
        assert_ne!(pid(&mut pool.get(SOON).unwrap()), first, "a client without a session is replaced");
    }

    #[test]
    fn a_timeout_reports_the_last_refusal_of_the_database() {
        let (db, pool) = pool(1);
        drop(db);
        let error = pool.get(Duration::from_millis(300)).map(drop).unwrap_err();
        assert!(error.to_string().contains("the last attempt failed"), "{error}");
        assert_eq!(pool.open_connections(), Some(0));
    }

    #[test]
    fn a_silent_host_costs_its_share_and_one_thread() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let db = DevDb::start(Options { fsync: false, ..Options::default() }).unwrap();
        let port = silent.local_addr().unwrap().port();
        let url = format!("postgres://postgres@127.0.0.1:{port},127.0.0.1:{}/postgres?connect_timeout=1", db.port());
        let pool = OwnPool::new(&Arc::new(ConnectionString::new(&url).unwrap()), 4);
        let lent: Vec<_> = (0..4).map(|_| pool.get(Duration::from_secs(30)).unwrap()).collect();
        // Only the first attempt keeps its connection and its thread; the others were given up.
        let ended = |mut socket: TcpStream| {
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            std::io::copy(&mut socket, &mut std::io::sink()).is_ok()
        };
        let ends: Vec<bool> = (0..4).map(|_| ended(silent.accept().unwrap().0)).collect();
        assert_eq!(ends, [false, true, true, true]);
        drop(lent);
    }

    #[test]
    fn idle_clients_and_clients_of_a_dropped_pool_are_closed() {
        let (_db, mut pool) = pool(3);
        Arc::get_mut(&mut pool.0).unwrap().idle_time = Duration::from_millis(50);
        let inner = pool.0.clone();
        let end = Instant::now() + SOON;
        let closes_all = || {
            let mut state = inner.lock();
            while state.open > 0 || state.has_thread {
                assert!(Instant::now() < end, "{} are open", state.open);
                drop(state);
                thread::yield_now();
                state = inner.lock();
            }
        };
        drop([pool.get(SOON).unwrap(), pool.get(SOON).unwrap()]);
        closes_all();
        let late = pool.get(SOON).unwrap();
        drop(pool);
        drop(late);
        closes_all();
    }
}
