//! Finds out whether a session keeps its server process. Behind a pooler in transaction mode it does not, and its
//! settings would reach other applications. Knows nothing of the tables.

use super::session::{Backend, Session};
use crate::error::{Error, Result};

/// In how many rounds two sessions are asked for their server process. A pooler that lends the process released last
/// gives both the same process. A pooler that rotates, or has other clients, gives a session another process each time.
const ROUNDS: u32 = 3;

/// The error for a session that does not keep its server process.
pub(super) fn refusal() -> Error {
    Error::config(
        "the connection goes through a connection pooler in transaction mode (such as PgBouncer with \
         pool_mode=transaction or statement, PgCat, Odyssey, Supavisor or RDS Proxy): the session would not keep its \
         server process, and its settings would reach other applications, so nothing was set; connect to PostgreSQL \
         directly, or through a pool with pool_mode=session",
    )
}

/// Asks two sessions in turn which process serves them. Refuses unless each session keeps a process of its own.
pub(super) fn refuse_shared_processes(first: &mut Session, backend: Backend, second: &mut Session) -> Result<()> {
    let mut other = None;
    for _ in 0..ROUNDS {
        let now = second.look()?;
        if now == backend || *other.get_or_insert(now) != now || first.look()? != backend {
            return Err(refusal());
        }
    }
    Ok(())
}

/// Refuses if another process serves the session now.
pub(super) fn refuse_change(session: &mut Session, backend: Backend) -> Result<()> {
    for _ in 0..ROUNDS {
        if session.look()? != backend {
            return Err(refusal());
        }
    }
    Ok(())
}
