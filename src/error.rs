//! The error type: its kinds, its text, and which errors are transient.
//! Knows no threads. Reads SQLSTATEs but runs no SQL.

use std::error::Error as StdError;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an error. Callers branch on it instead of parsing the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, a job field or a name is outside its limits. Nothing was written.
    Config,
    /// The database could not be reached, or the connection broke. If a call of `WorkerUtils` returns this error, it
    /// was not committed.
    Connect,
    /// The database refused the login: a wrong or missing password, an unknown role or database, no right to connect.
    Auth,
    /// TLS could not be set up as configured. The cause is a certificate, a host name or the root certificates.
    Tls,
    /// A statement failed in the database. See [`Error::sqlstate`].
    Database,
    /// The schema is missing, incomplete or too old, or a newer breaking migration changed it, or the role lacks a
    /// right on an object in it.
    Schema,
    /// A database call did not complete within its deadline. If a call of `WorkerUtils` returns this error, it was not
    /// committed.
    Timeout,
    /// The reply to a commit was lost, and the outcome could not be read from the database in time. The change may or
    /// may not have been committed. Check before you repeat the call.
    UnknownOutcome,
    /// An enqueue with a job key repeatedly lost a race with a worker. The job was not added.
    Conflict,
    /// A hook skipped the job that was to be added. Nothing was written.
    JobScheduleSkipped,
    /// A hook refused the job that was to be added. Nothing was written.
    JobScheduleFailed,
    /// A payload could not be serialized to JSON, or not be read from it.
    Payload,
    /// The call was made where it cannot work, for example on a thread of an async runtime.
    Misuse,
    /// The worker was stopped, or stopped trying to start.
    Stopped,
}

/// The error type of this crate. Displays as `what the library did: what went wrong`.
///
/// Use [`kind`](Error::kind), [`sqlstate`](Error::sqlstate) and [`is_transient`](Error::is_transient). Do not parse the
/// text. The text contains neither passwords nor payloads.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    sqlstate: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Creates an error of `kind` with the text `message`.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), sqlstate: None, source: None }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Sets the cause, which [`std::error::Error::source`] returns.
    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// Sets the SQLSTATE.
    pub(crate) fn with_sqlstate(mut self, state: &str) -> Self {
        self.0.sqlstate = Some(state.to_owned());
        self
    }

    /// Puts what was being done in front of the text: `claiming 8 jobs: connection closed`.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// Replaces the text.
    pub(crate) fn with_message(mut self, message: String) -> Self {
        self.0.message = message;
        self
    }

    /// Changes the kind `Database` to another one, for an error while a connection is made. No statement was run then,
    /// and settle decides over jobs by errors of kind `Database`.
    pub(crate) fn of_a_connect(mut self) -> Self {
        if self.0.kind == ErrorKind::Database {
            self.0.kind = match self.sqlstate().unwrap_or_default() {
                // 42501: the role may not connect to the database.
                "42501" => ErrorKind::Auth,
                // A setting in `options` is unknown or out of range.
                state if state.starts_with("22") || state.starts_with("42") => ErrorKind::Config,
                state if state != "0A000" && is_transient_state(state) => ErrorKind::Connect,
                // The database accepts no connections, or a login trigger raised an error.
                _ => ErrorKind::Auth,
            };
        }
        self
    }

    /// Changes the error to kind `Config` with this text, because the database refused a value that the caller gave.
    pub(crate) fn into_config(mut self, message: String) -> Self {
        (self.0.kind, self.0.message) = (ErrorKind::Config, message);
        self
    }

    /// Builds the error that a server would return.
    #[cfg(test)]
    pub(crate) fn of_database(state: &str, message: String) -> Self {
        let sqlstate = Some(state.to_owned());
        Self(Box::new(Inner { kind: ErrorKind::Database, message, sqlstate, source: None }))
    }

    /// The kind. Branch on it instead of parsing the text.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The five-character SQLSTATE, if PostgreSQL reported the error.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Returns true if the same call may succeed later. That is so after a broken connection, a missed deadline or a
    /// deadlock, and while the server starts up, shuts down, is read-only or is full.
    pub fn is_transient(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::UnknownOutcome | ErrorKind::Conflict => true,
            ErrorKind::Database => self.sqlstate().is_some_and(is_transient_state),
            _ => false,
        }
    }

    /// Returns true if the database refused the statement, wrote nothing, and the session can still be used.
    pub(crate) fn is_refusal(&self) -> bool {
        self.sqlstate().is_some() && !self.breaks_session()
    }

    /// Returns true if the session that reported this error must not be used again.
    pub(crate) fn breaks_session(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Auth => true,
            // The server refused the settings of the connection, so there is no session. 22P05: it refused a text only.
            ErrorKind::Config => self.sqlstate().is_some_and(|state| state != "22P05"),
            // 25006: the server is a standby. 0A000, 26000, 42P05: prepared statements are stale.
            ErrorKind::Database => self.sqlstate().is_some_and(|state| {
                matches!(state, "25006" | "0A000" | "26000" | "42P05")
                    || state.starts_with("57P")
                    || state.starts_with("08")
            }),
            _ => false,
        }
    }

    /// Returns true if a new session may succeed where this one failed. Within a session, a function keeps the row type
    /// that a table had before it was altered. A trigger with a mistake causes the same errors.
    pub(crate) fn is_stale(&self) -> bool {
        self.0.kind == ErrorKind::Database && matches!(self.sqlstate(), Some("42703" | "42804"))
    }
}

/// SQLSTATEs after which the same statement may succeed later, unchanged.
fn is_transient_state(state: &str) -> bool {
    matches!(
        state,
        "25006" | "0A000" | "26000" | "42P05" // standby; stale plans or statements
        | "40001" | "40P01" | "55P03" | "57014" // serialization, deadlock, lock or statement timeout
        | "3F000" | "42P01" // a schema or table that is being restored or renamed
    ) || ["08", "53", "57P", "58"].iter().any(|class| state.starts_with(class))
}

/// Returns true if the server ended the connection.
fn broke_off(error: &tokio_postgres::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    let cause = error.source().and_then(|cause| cause.downcast_ref::<std::io::Error>());
    cause.is_some_and(|cause| {
        matches!(cause.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof)
    })
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        let (kind, message, state) = match error.as_db_error() {
            Some(db) => {
                let state = db.code().code();
                let kind = match state {
                    // Class 28: authorization failed. 3D000: the database does not exist.
                    _ if state.starts_with("28") || state == "3D000" => ErrorKind::Auth,
                    _ if state.starts_with("08") || state.starts_with("57P") => ErrorKind::Connect,
                    // Too many connections. The server ended a session that was idle, or long, in a transaction.
                    "53300" | "25P03" | "25P04" => ErrorKind::Connect,
                    _ => ErrorKind::Database,
                };
                (kind, format!("{} (SQLSTATE {state})", db.message()), Some(state.to_owned()))
            }
            None => {
                // Without an error from the server, the connection failed: it was closed, refused or timed out.
                let mut message = error.to_string();
                let mut cause = error.source();
                while let Some(inner) = cause {
                    let inner_text = inner.to_string();
                    if !message.contains(&inner_text) {
                        message = format!("{message}: {inner_text}");
                    }
                    cause = inner.source();
                }
                let kind = if message.starts_with("error performing TLS handshake") {
                    // If the connection ends during the handshake, the server may be restarting.
                    if broke_off(&error) { ErrorKind::Connect } else { ErrorKind::Tls }
                } else if message.contains("received fatal alert") {
                    ErrorKind::Tls
                } else if message.starts_with("authentication error") {
                    if message.ends_with("unsupported authentication method") {
                        message.push_str(
                            ": the server asks for GSSAPI, SSPI or Kerberos; use a password or a certificate",
                        );
                    }
                    ErrorKind::Auth
                } else if message == "invalid configuration: password missing" {
                    message = "the server asks for a password, and none is given: set it in the connection string, \
                               in PGPASSWORD or in the password file"
                        .to_owned();
                    ErrorKind::Auth
                } else if message.starts_with("error serializing") || message.starts_with("error deserializing") {
                    ErrorKind::Payload
                } else {
                    ErrorKind::Connect
                };
                (kind, message, None)
            }
        };
        Self(Box::new(Inner { kind, message, sqlstate: state, source: Some(Box::new(error)) }))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}
