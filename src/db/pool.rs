//! The pools that lend connections to handlers: a pool of the caller (r2d2's or another), or this library's own.

use super::deadline;
use crate::error::{Error, ErrorKind, Result};
use r2d2::ManageConnection;
use std::fmt::Display;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

/// A connection of the pool, borrowed until it is dropped. Use it as a [`postgres::Client`].
///
/// Its settings are those of the pool: this library sets nothing on it that outlasts a transaction.
pub struct Connection(pub(super) Box<dyn Lend>);

/// A connection that a pool lends.
pub(super) trait Lend: DerefMut<Target = postgres::Client> + Send {
    /// Notes that a call on it has just succeeded. A pool that checks a connection before it lends it may skip the
    /// check.
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

/// A pool of blocking PostgreSQL clients.
///
/// Implemented for every [`r2d2::Pool`] whose manager makes [`postgres::Client`]s, such as `r2d2_postgres`. Implement
/// it to use another pool.
pub trait ConnectionPool: Send + Sync + 'static {
    /// Borrows a connection. Waits at most `timeout` for one to become free.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if none becomes free in time.
    fn get(&self, timeout: Duration) -> Result<Connection>;

    /// The largest number of connections that the pool opens.
    fn max_size(&self) -> u32;

    /// How many connections are open, borrowed or not; `None` if the pool cannot report it.
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

/// The error of a wait that ended without a connection.
pub(super) fn exhausted(timeout: Duration, size: u32, why: impl Display) -> Error {
    Error::new(ErrorKind::Connect, format!("no connection became free within {timeout:?} in a pool of {size}: {why}"))
}

/// A pool of the caller, with a deadline for each wait. The pool's own timeout bounds the wait for a free connection.
/// It does not bound the test whether an idle connection still works.
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
