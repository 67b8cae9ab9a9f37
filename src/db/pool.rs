//! The handlers' connections: an r2d2 pool of blocking `postgres` clients, ours or the caller's.
//! Knows nothing of the tables.

use super::conninfo::ConnInfo;
use super::deadline;
use super::tls::Tls;
use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use r2d2::ManageConnection;
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A connection of the pool, borrowed until it is dropped. Use it as a [`postgres::Client`].
///
/// Its settings are the pool's own: nothing of the queue is set on it.
pub struct Connection(Box<dyn DerefMut<Target = postgres::Client> + Send>);

impl Deref for Connection {
    type Target = postgres::Client;

    fn deref(&self) -> &postgres::Client {
        &self.0
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut postgres::Client {
        &mut self.0
    }
}

/// Whatever hands out blocking PostgreSQL clients: any r2d2 pool of them.
///
/// Implemented for every [`r2d2::Pool`] whose manager makes [`postgres::Client`]s, such as
/// `r2d2_postgres`; implement it for a pool of another make.
pub trait ConnectionPool: Send + Sync + 'static {
    /// Borrows a connection, waiting at most `timeout` for one to come free.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] when none came free in time.
    fn get(&self, timeout: Duration) -> Result<Connection>;

    /// How many connections there can be at once.
    fn max_size(&self) -> u32;

    /// How many connections there are now, borrowed or not; `None` if the pool cannot tell.
    fn open_connections(&self) -> Option<u32> {
        None
    }
}

impl<M: ManageConnection<Connection = postgres::Client>> ConnectionPool for r2d2::Pool<M> {
    fn get(&self, timeout: Duration) -> Result<Connection> {
        let connection = self.get_timeout(timeout).map_err(|e| none_came_free(timeout, self.max_size(), e))?;
        Ok(Connection(Box::new(connection)))
    }

    fn max_size(&self) -> u32 {
        r2d2::Pool::max_size(self)
    }

    fn open_connections(&self) -> Option<u32> {
        Some(self.state().connections)
    }
}

fn none_came_free(timeout: Duration, size: u32, e: r2d2::Error) -> Error {
    let text = format!("no connection came free within {timeout:?} in a pool of {size}: {e}");
    Error::new(ErrorKind::Connect, text).caused_by(e)
}

/// How long a farewell is waited for.
const FAREWELL: Duration = Duration::from_millis(100);

/// A client of our own pool. A client's farewell waits for its server, and for the answer that is still
/// owed, without a deadline. So it is dropped on another thread, which is left behind when it is late.
struct Kept {
    client: Option<postgres::Client>,
    /// Whether this one did not answer.
    suspect: bool,
    /// Whether a farewell of the pool was late: no other is waited for until the server answers again.
    silent: Arc<AtomicBool>,
}

impl Deref for Kept {
    type Target = postgres::Client;

    fn deref(&self) -> &postgres::Client {
        self.client.as_ref().expect("taken only by drop")
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut postgres::Client {
        self.client.as_mut().expect("taken only by drop")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let client = self.client.take();
        let given_up = self.suspect || self.silent.load(Ordering::Relaxed);
        let patience = if given_up { Duration::ZERO } else { FAREWELL };
        if deadline::call(patience, move || drop(client)).is_err() {
            self.silent.store(true, Ordering::Relaxed);
        }
    }
}

/// A connection that r2d2 lends us, seen as the client in it.
struct Borrowed(r2d2::PooledConnection<Manager>);

impl Deref for Borrowed {
    type Target = postgres::Client;

    fn deref(&self) -> &postgres::Client {
        &self.0
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut postgres::Client {
        &mut self.0
    }
}

/// Makes the clients of our own pool.
struct Manager {
    config: postgres::Config,
    tls: Tls,
    /// How long the last borrower was ready to wait, in milliseconds.
    patience: Arc<AtomicU64>,
    /// What the database said last: r2d2 itself says only that it waited in vain.
    refusal: Arc<Mutex<Option<Error>>>,
    silent: Arc<AtomicBool>,
}

impl ManageConnection for Manager {
    type Connection = Kept;
    type Error = Error;

    fn connect(&self) -> Result<Kept> {
        let (config, tls) = (self.config.clone(), self.tls.clone());
        let answer = deadline::call(self.patience(), move || config.connect(tls).map_err(Error::from));
        let client = answer.and_then(|answer| answer).inspect_err(|error| {
            *self.refusal.lock() = Some(Error::new(error.kind(), error.to_string()));
        })?;
        self.silent.store(false, Ordering::Relaxed);
        Ok(Kept { client: Some(client), suspect: false, silent: self.silent.clone() })
    }

    /// Leaves time for another connection, should this one not answer.
    fn is_valid(&self, kept: &mut Kept) -> Result<()> {
        let answer = kept.is_valid((self.patience() / 4).min(Duration::from_secs(2)));
        kept.suspect = answer.is_err();
        if !kept.suspect {
            self.silent.store(false, Ordering::Relaxed);
        }
        Ok(answer?)
    }

    fn has_broken(&self, kept: &mut Kept) -> bool {
        kept.is_closed()
    }
}

impl Manager {
    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience.load(Ordering::Relaxed))
    }
}

/// Our own pool, opened lazily, with the database's own words when it refuses.
pub(crate) struct OwnPool {
    pool: r2d2::Pool<Manager>,
    patience: Arc<AtomicU64>,
    refusal: Arc<Mutex<Option<Error>>>,
}

impl OwnPool {
    pub(crate) fn new(info: &ConnInfo, tls: &Tls, size: u32) -> Self {
        let mut config = postgres::Config::from(info.config().clone());
        config.application_name("graphile-worker:handler");
        let refusal = Arc::new(Mutex::new(None));
        let patience = Arc::new(AtomicU64::new(10_000));
        let (tls, silent) = (tls.clone(), Arc::default());
        let manager = Manager { config, tls, patience: patience.clone(), refusal: refusal.clone(), silent };
        let threads = ScheduledThreadPool::builder()
            .num_threads(1)
            .thread_name_pattern("gw-pool")
            .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
            .build();
        let pool = r2d2::Pool::builder()
            .max_size(size)
            .min_idle(Some(0))
            .error_handler(Box::new(r2d2::NopErrorHandler))
            .thread_pool(Arc::new(threads))
            .build_unchecked(manager);
        Self { pool, patience, refusal }
    }
}

impl ConnectionPool for OwnPool {
    fn get(&self, timeout: Duration) -> Result<Connection> {
        self.patience.store(timeout.as_millis() as u64, Ordering::Relaxed);
        match self.pool.get_timeout(timeout) {
            Ok(connection) => {
                *self.refusal.lock() = None;
                Ok(Connection(Box::new(Borrowed(connection))))
            }
            Err(e) => {
                let error = none_came_free(timeout, self.max_size(), e);
                Err(match self.refusal.lock().take() {
                    Some(refusal) => Error::new(refusal.kind(), format!("{error}; the database said: {refusal}")),
                    None => error,
                })
            }
        }
    }

    fn max_size(&self) -> u32 {
        self.pool.max_size()
    }

    fn open_connections(&self) -> Option<u32> {
        Some(self.pool.state().connections)
    }
}
