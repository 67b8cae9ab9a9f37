//! How calls end: statuses and error objects.

use super::handle::{self, Slab, Slabs, Value};
use super::{read, text};
use crate::{Error, ErrorKind};
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// How a call ended: 0 well; above 0 without an error, but not as hoped; below 0 with an error. New numbers may come:
/// take an unknown one above 0 for "try again later", one below for an error.
pub type gw_status_t = i32;

/// It went well.
pub const GW_OK: gw_status_t = 0;
/// Nothing came in time.
pub const GW_TIMEOUT: gw_status_t = 1;
/// Nothing will come any more.
pub const GW_STOPPED: gw_status_t = 2;
/// `gw_worker_wakeup` was called.
pub const GW_WOKEN: gw_status_t = 3;
/// There is none.
pub const GW_NOT_FOUND: gw_status_t = 4;
/// A job that was given out earlier is to end early.
pub const GW_CANCELLED: gw_status_t = 5;
/// An argument is NULL, or a number outside its range; the message names it.
pub const GW_ERR_INVALID: gw_status_t = -1;
/// Not now: the worker runs already, or does not run.
pub const GW_ERR_STATE: gw_status_t = -2;
/// The job has its outcome, or is no longer this worker's.
pub const GW_ERR_ALREADY_FINISHED: gw_status_t = -3;
/// The worker of this job has stopped.
pub const GW_ERR_CLOSED: gw_status_t = -4;
/// The handle is the parent process's.
pub const GW_ERR_FORKED: gw_status_t = -5;
/// The call would wait for the very thread that makes it.
pub const GW_ERR_DEADLOCK: gw_status_t = -6;
/// Library and header do not fit together.
pub const GW_ERR_ABI: gw_status_t = -7;
/// Memory, handles or threads are used up.
pub const GW_ERR_NOMEM: gw_status_t = -8;
/// The handle was freed, or is of another kind.
pub const GW_ERR_HANDLE: gw_status_t = -9;
/// The worker has stopped, but handlers did not return, or outcomes could not be written; the message names the jobs.
pub const GW_ERR_STUCK: gw_status_t = -10;
/// An option or a field is outside its limits; the message names it. Nothing was written.
pub const GW_ERR_CONFIG: gw_status_t = -20;
/// A crontab is wrong; the message has line and column.
pub const GW_ERR_CRONTAB: gw_status_t = -21;
/// A text is not the JSON that is needed; the message names the field, line and column.
pub const GW_ERR_JSON: gw_status_t = -22;
/// A text is not UTF-8, or has a NUL within it.
pub const GW_ERR_UTF8: gw_status_t = -23;
/// The database could not be reached, or the connection broke.
pub const GW_ERR_CONNECT: gw_status_t = -40;
/// The database refused who we are.
pub const GW_ERR_AUTH: gw_status_t = -41;
/// TLS could not be set up as asked.
pub const GW_ERR_TLS: gw_status_t = -42;
/// The database answered an error; see `gw_error_sqlstate`.
pub const GW_ERR_DATABASE: gw_status_t = -43;
/// The schema is missing, incomplete, too old or too new, or the role lacks a right on it.
pub const GW_ERR_SCHEMA: gw_status_t = -44;
/// The database did not answer in time.
pub const GW_ERR_DATABASE_TIMEOUT: gw_status_t = -45;
/// A keyed job was taken by a worker again and again, and nothing was added.
pub const GW_ERR_CONFLICT: gw_status_t = -46;
/// The reply to the commit was lost, and the database could not be asked for the outcome: the change may have been made.
pub const GW_ERR_UNKNOWN_OUTCOME: gw_status_t = -47;
/// An interceptor skipped the job that was to be added.
pub const GW_ERR_SKIPPED: gw_status_t = -48;
/// An interceptor refused the job that was to be added.
pub const GW_ERR_REFUSED: gw_status_t = -49;
/// Not in this build, or not on this system.
pub const GW_ERR_UNSUPPORTED: gw_status_t = -80;
/// A bug of the library, caught at its door; please report it.
pub const GW_ERR_PANIC: gw_status_t = -99;

/// Each status with its name and what it means.
const STATUSES: &[(gw_status_t, &CStr, &CStr)] = &[
    (GW_OK, c"GW_OK", c"it went well"),
    (GW_TIMEOUT, c"GW_TIMEOUT", c"nothing came in time"),
    (GW_STOPPED, c"GW_STOPPED", c"the worker has stopped"),
    (GW_WOKEN, c"GW_WOKEN", c"somebody called gw_worker_wakeup"),
    (GW_NOT_FOUND, c"GW_NOT_FOUND", c"there is none"),
    (GW_CANCELLED, c"GW_CANCELLED", c"a job is to end early"),
    (GW_ERR_INVALID, c"GW_ERR_INVALID", c"an argument is NULL or outside its range"),
    (GW_ERR_STATE, c"GW_ERR_STATE", c"not possible in this state"),
    (
        GW_ERR_ALREADY_FINISHED,
        c"GW_ERR_ALREADY_FINISHED",
        c"the job has its outcome already, or is no longer this worker's",
    ),
    (GW_ERR_CLOSED, c"GW_ERR_CLOSED", c"the worker of this job has stopped"),
    (GW_ERR_FORKED, c"GW_ERR_FORKED", c"the handle belongs to the parent process"),
    (GW_ERR_DEADLOCK, c"GW_ERR_DEADLOCK", c"the call would wait for its own thread"),
    (GW_ERR_ABI, c"GW_ERR_ABI", c"library and header do not fit together"),
    (GW_ERR_NOMEM, c"GW_ERR_NOMEM", c"memory, handles or threads are used up"),
    (GW_ERR_HANDLE, c"GW_ERR_HANDLE", c"the handle was freed, or is of another kind"),
    (GW_ERR_STUCK, c"GW_ERR_STUCK", c"handlers did not return in time, or outcomes could not be written"),
    (GW_ERR_CONFIG, c"GW_ERR_CONFIG", c"an option or a field is outside its limits"),
    (GW_ERR_CRONTAB, c"GW_ERR_CRONTAB", c"a crontab is wrong"),
    (GW_ERR_JSON, c"GW_ERR_JSON", c"a text is not the JSON that is needed"),
    (GW_ERR_UTF8, c"GW_ERR_UTF8", c"a text is not UTF-8"),
    (GW_ERR_CONNECT, c"GW_ERR_CONNECT", c"the database could not be reached"),
    (GW_ERR_AUTH, c"GW_ERR_AUTH", c"the database refused who we are"),
    (GW_ERR_TLS, c"GW_ERR_TLS", c"TLS could not be set up as asked"),
    (GW_ERR_DATABASE, c"GW_ERR_DATABASE", c"the database answered an error"),
    (GW_ERR_SCHEMA, c"GW_ERR_SCHEMA", c"the schema is missing, too old or too new, or the role may not use it"),
    (GW_ERR_DATABASE_TIMEOUT, c"GW_ERR_DATABASE_TIMEOUT", c"the database did not answer in time"),
    (GW_ERR_CONFLICT, c"GW_ERR_CONFLICT", c"a worker took the job of this key meanwhile, nothing was added"),
    (GW_ERR_UNKNOWN_OUTCOME, c"GW_ERR_UNKNOWN_OUTCOME", c"the change may or may not have been made"),
    (GW_ERR_SKIPPED, c"GW_ERR_SKIPPED", c"an interceptor skipped the job"),
    (GW_ERR_REFUSED, c"GW_ERR_REFUSED", c"an interceptor refused the job"),
    (GW_ERR_UNSUPPORTED, c"GW_ERR_UNSUPPORTED", c"not supported here"),
    (GW_ERR_PANIC, c"GW_ERR_PANIC", c"a bug of the library"),
];

/// Why a call failed, on its way to the caller.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) status: gw_status_t,
    pub(super) message: String,
    sqlstate: Option<String>,
    retryable: bool,
}

impl Failure {
    pub(super) fn new(status: gw_status_t, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), sqlstate: None, retryable: false }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(GW_ERR_INVALID, message)
    }

    /// The same, with words on where it was.
    pub(super) fn within(mut self, place: impl std::fmt::Display) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(super) fn config(message: impl Into<String>) -> Self {
        Self::new(GW_ERR_CONFIG, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Config => GW_ERR_CONFIG,
            ErrorKind::Connect => GW_ERR_CONNECT,
            ErrorKind::Auth => GW_ERR_AUTH,
            ErrorKind::Tls => GW_ERR_TLS,
            ErrorKind::Database => GW_ERR_DATABASE,
            ErrorKind::Schema => GW_ERR_SCHEMA,
            ErrorKind::Timeout => GW_ERR_DATABASE_TIMEOUT,
            ErrorKind::UnknownOutcome => GW_ERR_UNKNOWN_OUTCOME,
            ErrorKind::Conflict => GW_ERR_CONFLICT,
            ErrorKind::JobScheduleSkipped => GW_ERR_SKIPPED,
            ErrorKind::JobScheduleFailed => GW_ERR_REFUSED,
            ErrorKind::Payload => GW_ERR_JSON,
            ErrorKind::Misuse => GW_ERR_STATE,
            ErrorKind::Stopped => GW_ERR_STUCK,
        };
        Self {
            status,
            message: error.to_string(),
            sqlstate: error.sqlstate().map(str::to_owned),
            retryable: error.is_transient(),
        }
    }
}

/// What went wrong. Immutable, for any thread; freed with `gw_error_free`.
pub struct gw_error_t;

pub(super) struct ErrorValue {
    status: gw_status_t,
    pub(super) message: CString,
    sqlstate: Option<CString>,
    retryable: bool,
}

impl ErrorValue {
    pub(super) fn new(failure: Failure) -> Self {
        Self {
            status: failure.status,
            message: text::owned(failure.message),
            sqlstate: failure.sqlstate.map(text::owned),
            retryable: failure.retryable,
        }
    }
}

impl Value for ErrorValue {
    const KIND: u64 = 1;
    const NAME: &'static str = "error";

    fn slab(slabs: &Slabs) -> &Slab<Self> {
        &slabs.errors
    }
}

fn meaning(status: gw_status_t) -> Option<&'static (gw_status_t, &'static CStr, &'static CStr)> {
    STATUSES.iter().find(|known| known.0 == status)
}

/// The name of a status: `"GW_ERR_CONNECT"`; `"GW_UNKNOWN"` if it has none. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_status_name(status: gw_status_t) -> *const c_char {
    meaning(status).map_or(c"GW_UNKNOWN", |known| known.1).as_ptr()
}

/// What a status means, in a few words. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_status_text(status: gw_status_t) -> *const c_char {
    meaning(status).map_or(c"a status that this version does not know", |known| known.2).as_ptr()
}

/// Every status, by its place from 0 on; INT32_MIN after the last. For those who generate bindings.
#[unsafe(no_mangle)]
pub extern "C" fn gw_status_at(index: usize) -> gw_status_t {
    STATUSES.get(index).map_or(i32::MIN, |known| known.0)
}

/// The status of the call that gave this error. GW_ERR_INVALID if it is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_status(error: *const gw_error_t) -> gw_status_t {
    match handle::look::<ErrorValue, _>(error) {
        Ok(error) => error.status,
        Err(failure) => failure.status,
    }
}

/// What went wrong, and what to do about it. Carries neither passwords nor payloads. Valid until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_message(error: *const gw_error_t) -> *const c_char {
    read(ptr::null(), || Ok(handle::look::<ErrorValue, _>(error)?.message.as_ptr()))
}

/// The five characters by which PostgreSQL named the error; NULL if it was not the database that answered one. Valid
/// until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_sqlstate(error: *const gw_error_t) -> *const c_char {
    read(ptr::null(), || {
        Ok(handle::look::<ErrorValue, _>(error)?.sqlstate.as_ref().map_or(ptr::null(), |state| state.as_ptr()))
    })
}

/// Whether trying the same again later may work: a broken connection, a deadlock, a server that is starting.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_is_retryable(error: *const gw_error_t) -> bool {
    read(false, || Ok(handle::look::<ErrorValue, _>(error)?.retryable))
}

/// Frees an error. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_free(error: *mut gw_error_t) {
    read((), || handle::free::<ErrorValue, _>(error));
}
