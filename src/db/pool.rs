//! The handlers' connections: an r2d2 pool of blocking `postgres` clients, ours or the caller's.
//! Knows nothing of the tables.

use super::conninfo::ConnInfo;
use super::tls::Tls;
use crate::error::{Error, ErrorKind, Result};
use parking_lot::Mutex;
use r2d2::ManageConnection;
use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
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
}

impl<M: ManageConnection<Connection = postgres::Client>> ConnectionPool for r2d2::Pool<M> {
    fn get(&self, timeout: Duration) -> Result<Connection> {
        let connection = self.get_timeout(timeout).map_err(|e| {
            let text = format!("no connection came free within {timeout:?} in a pool of {}: {e}", self.max_size());
            Error::new(ErrorKind::Connect, text).caused_by(e)
        })?;
        Ok(Connection(Box::new(connection)))
    }

    fn max_size(&self) -> u32 {
        r2d2::Pool::max_size(self)
    }
}

/// Makes the clients of our own pool.
struct Manager {
    config: postgres::Config,
    tls: Tls,
    /// What the database said last: r2d2 itself says only that it waited in vain.
    refusal: Arc<Mutex<Option<Error>>>,
}

impl ManageConnection for Manager {
    type Connection = postgres::Client;
    type Error = Error;

    fn connect(&self) -> Result<postgres::Client> {
        self.config.connect(self.tls.clone()).map_err(|e| {
            let error = Error::from(e);
            *self.refusal.lock() = Some(Error::new(error.kind(), error.to_string()));
            error
        })
    }

    fn is_valid(&self, client: &mut postgres::Client) -> Result<()> {
        Ok(client.is_valid(Duration::from_secs(2))?)
    }

    fn has_broken(&self, client: &mut postgres::Client) -> bool {
        client.is_closed()
    }
}

/// Our own pool, opened lazily, with the database's own words when it refuses.
pub(crate) struct OwnPool {
    pool: r2d2::Pool<Manager>,
    refusal: Arc<Mutex<Option<Error>>>,
}

impl OwnPool {
    pub(crate) fn new(info: &ConnInfo, tls: &Tls, size: u32) -> Self {
        let mut config = postgres::Config::from(info.config().clone());
        config.application_name("graphile-worker:handler");
        let refusal = Arc::new(Mutex::new(None));
        let manager = Manager { config, tls: tls.clone(), refusal: refusal.clone() };
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
        Self { pool, refusal }
    }
}

impl ConnectionPool for OwnPool {
    fn get(&self, timeout: Duration) -> Result<Connection> {
        match ConnectionPool::get(&self.pool, timeout) {
            Ok(connection) => {
                *self.refusal.lock() = None;
                Ok(connection)
            }
            Err(error) => Err(match self.refusal.lock().take() {
                Some(refusal) => Error::new(refusal.kind(), format!("{error}; the database said: {refusal}")),
                None => error,
            }),
        }
    }

    fn max_size(&self) -> u32 {
        self.pool.max_size()
    }
}
