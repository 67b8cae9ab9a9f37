//! The session of one engine thread: opened when a call needs it, dropped after it broke, opened again.
//! Knows nothing of the tables.

use super::database::Database;
use super::session::{Backend, Interrupt, Session, Setup};
use crate::error::{ErrorKind, Result};
use parking_lot::Mutex;
use std::sync::Arc;

/// The slot of one engine session: connects when a session is needed, and drops it after it broke.
pub(crate) struct Reconnecting {
    database: Database,
    role: &'static str,
    interrupt: Interrupt,
    /// How every new session of this slot is set up.
    setup: Setup,
    session: Option<Session>,
    /// Counts the session while it is open.
    counted: Option<Counted>,
    /// How often this slot has connected.
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

    /// How often this slot has connected. A change means that notifications and locks may have been missed.
    pub(crate) fn connects(&self) -> u64 {
        self.connects
    }

    /// Runs `call` on the slot's session. Connects first if there is none.
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
                // The server may still run the call. The next session ends it before it changes anything later.
                self.database.abandoned.lock().push(session.backend());
            }
            if error.breaks_session() || error.is_stale() {
                self.leave();
            }
        }
        answer
    }

    /// Ends what abandoned sessions of all slots may still be doing. Returns whether that is known to be over.
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

/// Counts one open session of a role while this value lives.
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
        if let Some(index) = open.iter().position(|entry| *entry == self.1) {
            open.swap_remove(index);
        }
    }
}
