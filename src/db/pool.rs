//! What hands out the handlers' connections: a pool of the caller's, r2d2's or of another make, or our own.

use super::deadline;
use crate::error::{Error, ErrorKind, Result};
use r2d2::ManageConnection;
use std::fmt::Display;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// A connection of the pool, borrowed until it is dropped. Use it as a [`postgres::Client`].
///
/// Its settings are the pool's own: nothing of the queue is set on it.
pub struct Connection(pub(super) Box<dyn Lend>);

/// What a pool lends.
pub(super) trait Lend: DerefMut<Target = postgres::Client> + Send {
    /// A call on it has just succeeded: a pool that checks a connection before it lends it may leave the check out.
    fn call_succeeded(&mut self) {}
}

impl<M: ManageConnection<Connection = postgres::Client>> Lend for r2d2::PooledConnection<M> {}

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
        let connection = self.get_timeout(timeout).map_err(|e| exhausted(timeout, self.max_size(), &e).caused_by(e))?;
        Ok(Connection(Box::new(connection)))
    }

    fn max_size(&self) -> u32 {
        r2d2::Pool::max_size(self)
    }

    fn open_connections(&self) -> Option<u32> {
        Some(self.state().connections)
    }
}

/// The error of a wait in vain.
pub(super) fn exhausted(timeout: Duration, size: u32, why: impl Display) -> Error {
    Error::new(ErrorKind::Connect, format!("no connection came free within {timeout:?} in a pool of {size}: {why}"))
}

/// A pool of the caller's that answers in time: its own timeout bounds the wait for a connection to come free, but not the
/// test whether one that lay there still answers.
pub(super) struct WithDeadline(pub(super) Arc<dyn ConnectionPool>);

impl ConnectionPool for WithDeadline {
    fn get(&self, timeout: Duration) -> Result<Connection> {
        let pool = self.0.clone();
        deadline::call(timeout, move || pool.get(timeout))?
    }

    fn max_size(&self) -> u32 {
        self.0.max_size()
    }

    fn open_connections(&self) -> Option<u32> {
        self.0.open_connections()
    }
}
