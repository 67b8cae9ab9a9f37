//! What went wrong, in words that tell the reader what to do next.
//! Knows nothing of threads; reads SQLSTATEs but runs no SQL.

use std::error::Error as StdError;
use std::fmt;

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of thing went wrong: what a caller branches on, instead of reading the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An option, a job field or a name is outside its limits; nothing was written.
    Config,
    /// The database could not be reached, or the connection broke. A call of `WorkerUtils` that ends so was not committed.
    Connect,
    /// The database refused who we are: a wrong password or none, an unknown role or database, no right to connect.
    Auth,
    /// TLS could not be set up as asked: certificates, names, roots.
    Tls,
    /// The database answered a statement with an error; see [`Error::sqlstate`].
    Database,
    /// The schema is missing, incomplete, too old, was changed by a newer breaking migration, or the role lacks a right
    /// on what stands in it.
    Schema,
    /// A database call did not answer within its deadline. A call of `WorkerUtils` that ends so was not committed.
    Timeout,
    /// The reply to a commit was lost, and the database could not be asked for the outcome in time: the change may or may
    /// not have been made. Look before you repeat it.
    UnknownOutcome,
    /// A keyed enqueue lost a race with a worker again and again, and was not added.
    Conflict,
    /// A hook skipped the job that was to be added; nothing was written.
    JobScheduleSkipped,
    /// A hook refused the job that was to be added; nothing was written.
    JobScheduleFailed,
    /// A payload could not be turned into JSON or read back from it.
    Payload,
    /// The call was made where it cannot work, for example on a thread of an async runtime.
    Misuse,
    /// The worker was stopped, or gave up starting.
    Stopped,
}

/// The one error of this crate. Prints as `what we did: what went wrong`.
///
/// Ask [`kind`](Error::kind), [`sqlstate`](Error::sqlstate) and
/// [`is_transient`](Error::is_transient); never parse the text. The text carries neither
/// passwords nor payloads.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    sqlstate: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says `message`.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), sqlstate: None, source: None }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// Keeps the cause, so that [`std::error::Error::source`] leads to it.
    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Box::new(source));
        self
    }

    /// Names the error as PostgreSQL would.
    pub(crate) fn with_sqlstate(mut self, state: &str) -> Self {
        self.0.sqlstate = Some(state.to_owned());
        self
    }

    /// Puts what we were doing in front: `claiming 8 jobs: connection closed`.
    pub(crate) fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// The same, in other words.
    pub(crate) fn saying(mut self, message: String) -> Self {
        self.0.message = message;
        self
    }

    /// The same, as what it means while a connection is made: then the database has answered no statement yet.
    pub(crate) fn of_a_connect(mut self) -> Self {
        if self.0.kind == ErrorKind::Database {
            self.0.kind = match self.sqlstate().unwrap_or_default() {
                // 42501: the role may not connect to the database.
                "42501" => ErrorKind::Auth,
                // What `options` asks for is unknown or out of range.
                state if state.starts_with("22") || state.starts_with("42") => ErrorKind::Config,
                state if state != "0A000" && is_transient_state(state) => ErrorKind::Connect,
                // A database that accepts no connections, a login trigger that raises.
                _ => ErrorKind::Auth,
            };
        }
        self
    }

    /// The same fault in terms of the caller's: what the database refused is one of its fields.
    pub(crate) fn into_config(mut self, message: String) -> Self {
        (self.0.kind, self.0.message) = (ErrorKind::Config, message);
        self
    }

    /// What a server answers, without one.
    #[cfg(test)]
    pub(crate) fn of_database(state: &str, message: String) -> Self {
        let sqlstate = Some(state.to_owned());
        Self(Box::new(Inner { kind: ErrorKind::Database, message, sqlstate, source: None }))
    }

    /// The kind, for branching.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The five characters with which PostgreSQL named the error, when it was the database that did.
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.sqlstate.as_deref()
    }

    /// Whether trying the same again later may work: a broken connection, a missed deadline,
    /// a deadlock, a server that starts up or shuts down, one that is read-only or full for now.
    pub fn is_transient(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::UnknownOutcome | ErrorKind::Conflict => true,
            ErrorKind::Database => self.sqlstate().is_some_and(is_transient_state),
            _ => false,
        }
    }

    /// Whether the database refused the statement, and nothing else is wrong: it wrote nothing, and the session goes on.
    pub(crate) fn is_refusal(&self) -> bool {
        self.sqlstate().is_some() && !self.breaks_session()
    }

    /// Whether the session that answered so can still be used.
    pub(crate) fn breaks_session(&self) -> bool {
        match self.0.kind {
            ErrorKind::Connect | ErrorKind::Timeout | ErrorKind::Auth => true,
            // The server refused the settings of a connection: there is no session.
            ErrorKind::Config => self.sqlstate().is_some(),
            // 25006: we talk to a standby. 0A000, 26000, 42P05: prepared statements went stale.
            ErrorKind::Database => self.sqlstate().is_some_and(|state| {
                matches!(state, "25006" | "0A000" | "26000" | "42P05")
                    || state.starts_with("57P")
                    || state.starts_with("08")
            }),
            _ => false,
        }
    }

    /// Whether a new session may succeed where this one failed: a function keeps the row type that a table had before
    /// it was altered. A trigger that is simply wrong fails so too.
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

/// Whether the cause of an error is that the other side ended the connection.
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
                    // Class 28 is authorization, 3D000 a database that does not exist.
                    _ if state.starts_with("28") || state == "3D000" => ErrorKind::Auth,
                    _ if state.starts_with("08") || state.starts_with("57P") || state == "53300" => ErrorKind::Connect,
                    _ => ErrorKind::Database,
                };
                (kind, format!("{} (SQLSTATE {state})", db.message()), Some(state.to_owned()))
            }
            None => {
                // Everything without an answer of the server is the connection: closed, refused, timed out.
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
                    // A connection that ends amid the handshake is one that broke: the server may be restarting.
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
                    message = "the server asks for a password, and none is given: it stands in the connection string, \
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
