//! The exit status of the process, and its error messages.

use crate::cli::screen::{lines, print_message};
use graphile_worker::{Error, ErrorKind};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::{io, thread};

/// The exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success = 0,
    Failure = 1,
    Usage = 2,
    Database = 3,
    Schema = 4,
    NotFound = 5,
    Interrupted = 130,
}

impl Exit {
    const ALL: [Exit; 7] =
        [Self::Success, Self::Failure, Self::Usage, Self::Database, Self::Schema, Self::NotFound, Self::Interrupted];

    fn meaning(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "an error that has no status of its own below",
            Self::Usage => "the command line, the environment or a value in them is invalid; nothing was done",
            Self::Database => "the database cannot be reached, refuses the login, reports an error, or is too slow",
            Self::Schema => "the schema has no queue, or this version or the role cannot use it",
            Self::NotFound => "a named job or worker was not found, or a worker holds the job; the rest was done",
            Self::Interrupted => "ended by Ctrl-C or SIGTERM; uncommitted changes were undone",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// The exit statuses, for the end of `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from("Exit status:\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "  {:>3}  {}", exit as u8, exit.meaning());
    }
    text
}

/// Why a command ended early.
pub(crate) struct Failure {
    exit: Exit,
    text: String,
    /// The schema has no queue.
    nothing_there: bool,
}

impl Failure {
    fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), nothing_there: false }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, text)
    }

    /// Prints the error to stderr. Returns the exit status.
    pub(crate) fn report(&self, schema: &str) -> Exit {
        if !self.text.is_empty() {
            print_message(format_args!("{}", lines(&self.text)));
        }
        if self.nothing_there {
            print_message(format_args!(
                "is {schema:?} the right --schema? If so, graphile-worker migrate makes it ready"
            ));
        }
        self.exit
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Schema => Exit::Schema,
            ErrorKind::Config | ErrorKind::Payload => Exit::Usage,
            ErrorKind::Connect
            | ErrorKind::Auth
            | ErrorKind::Tls
            | ErrorKind::Database
            | ErrorKind::Timeout
            | ErrorKind::UnknownOutcome => Exit::Database,
            _ => Exit::Failure,
        };
        let nothing_there = exit == Exit::Schema && error.sqlstate() == Some("3F000");
        let hint = if error.kind() == ErrorKind::Timeout { "; --timeout lets it take longer" } else { "" };
        Self { nothing_there, ..Self::new(exit, format!("{error}{hint}")) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // The reader of the pipe, such as head, has closed it.
            io::ErrorKind::BrokenPipe => Self::new(Exit::Success, ""),
            _ => Self::new(Exit::Failure, format!("writing the output: {error}")),
        }
    }
}

/// Calls `then` once, on Ctrl-C or SIGTERM, on a thread of its own. The next signal ends the process.
pub(crate) fn on_interrupt(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            then();
        }
        if signals.next().is_some() {
            interrupted();
        }
    })?;
    Ok(())
}

/// Ends the process. Every change is one transaction, so there is nothing to undo. A cleanup keeps its committed
/// batches.
pub(crate) fn interrupted() {
    print_message(format_args!("interrupted"));
    std::process::exit(Exit::Interrupted as i32);
}
