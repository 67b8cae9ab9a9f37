//! The results of calls: statuses, and what they are called.

use std::ffi::{CStr, c_char};

/// The result of a call. 0: success. Above 0: no error, but no result either. Below 0: an error. New numbers may be
/// added: treat an unknown one above 0 as "try again later", and one below 0 as an error.
pub type gw_status_t = i32;

/// Success.
pub const GW_OK: gw_status_t = 0;
/// The timeout ended before there was a result.
pub const GW_TIMEOUT: gw_status_t = 1;
/// The worker or the log queue delivers nothing more.
pub const GW_STOPPED: gw_status_t = 2;
/// `gw_worker_wakeup` was called.
pub const GW_WOKEN: gw_status_t = 3;
/// The named thing does not exist.
pub const GW_NOT_FOUND: gw_status_t = 4;
/// A job that was handed out earlier should end early.
pub const GW_CANCELLED: gw_status_t = 5;
/// An argument is NULL, or a number is outside its range; the message names the argument.
pub const GW_ERR_INVALID: gw_status_t = -1;
/// The call is not possible in this state: the worker already runs, or does not run.
pub const GW_ERR_STATE: gw_status_t = -2;
/// The job already has an outcome, or this worker no longer holds it.
pub const GW_ERR_ALREADY_FINISHED: gw_status_t = -3;
/// The worker of this job has stopped.
pub const GW_ERR_CLOSED: gw_status_t = -4;
/// The handle belongs to the parent process.
pub const GW_ERR_FORKED: gw_status_t = -5;
/// The call would wait for the thread that makes it.
pub const GW_ERR_DEADLOCK: gw_status_t = -6;
/// Library and header do not fit together.
pub const GW_ERR_ABI: gw_status_t = -7;
/// Memory, handles or threads are used up.
pub const GW_ERR_NOMEM: gw_status_t = -8;
/// The handle was freed, or is of another kind.
pub const GW_ERR_HANDLE: gw_status_t = -9;
/// The worker has stopped, but handlers did not return or outcomes could not be written; the message names the jobs.
pub const GW_ERR_STUCK: gw_status_t = -10;
/// An option or a field is outside its limits; the message names it. Nothing was written.
pub const GW_ERR_CONFIG: gw_status_t = -20;
/// A crontab is wrong; the message has line and column.
pub const GW_ERR_CRONTAB: gw_status_t = -21;
/// A text is not the JSON that is needed; the message names the field, line and column.
pub const GW_ERR_JSON: gw_status_t = -22;
/// A text is not UTF-8, or has a NUL in it.
pub const GW_ERR_UTF8: gw_status_t = -23;
/// The database could not be reached, or the connection broke.
pub const GW_ERR_CONNECT: gw_status_t = -40;
/// Authentication failed: wrong password, unknown role or database, or no right to connect.
pub const GW_ERR_AUTH: gw_status_t = -41;
/// TLS could not be set up as configured.
pub const GW_ERR_TLS: gw_status_t = -42;
/// The database returned an error; see `gw_error_sqlstate`.
pub const GW_ERR_DATABASE: gw_status_t = -43;
/// The schema is missing, incomplete, too old or too new, or the role lacks a right on it.
pub const GW_ERR_SCHEMA: gw_status_t = -44;
/// The database did not reply in time.
pub const GW_ERR_DATABASE_TIMEOUT: gw_status_t = -45;
/// A worker took the keyed job at every attempt, and nothing was added.
pub const GW_ERR_CONFLICT: gw_status_t = -46;
/// The reply to the commit was lost, and the library could not query the outcome: the change may or may not have been
/// made.
pub const GW_ERR_UNKNOWN_OUTCOME: gw_status_t = -47;
/// An interceptor skipped the job to add.
pub const GW_ERR_SKIPPED: gw_status_t = -48;
/// An interceptor refused the job to add.
pub const GW_ERR_REFUSED: gw_status_t = -49;
/// Not supported by this build or on this system.
pub const GW_ERR_UNSUPPORTED: gw_status_t = -80;
/// A bug in the library, caught in the C API; please report it.
pub const GW_ERR_PANIC: gw_status_t = -99;

/// Each status with its name and its text.
const STATUSES: &[(gw_status_t, &CStr, &CStr)] = &[
    (GW_OK, c"GW_OK", c"success"),
    (GW_TIMEOUT, c"GW_TIMEOUT", c"the timeout ended without a result"),
    (GW_STOPPED, c"GW_STOPPED", c"the worker has stopped"),
    (GW_WOKEN, c"GW_WOKEN", c"gw_worker_wakeup was called"),
    (GW_NOT_FOUND, c"GW_NOT_FOUND", c"not found"),
    (GW_CANCELLED, c"GW_CANCELLED", c"a job should end early"),
    (GW_ERR_INVALID, c"GW_ERR_INVALID", c"an argument is NULL or outside its range"),
    (GW_ERR_STATE, c"GW_ERR_STATE", c"not possible in this state"),
    (
        GW_ERR_ALREADY_FINISHED,
        c"GW_ERR_ALREADY_FINISHED",
        c"the job already has an outcome, or this worker no longer holds it",
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
    (GW_ERR_AUTH, c"GW_ERR_AUTH", c"authentication failed"),
    (GW_ERR_TLS, c"GW_ERR_TLS", c"TLS could not be set up as configured"),
    (GW_ERR_DATABASE, c"GW_ERR_DATABASE", c"the database returned an error"),
    (GW_ERR_SCHEMA, c"GW_ERR_SCHEMA", c"the schema is missing, too old or too new, or the role may not use it"),
    (GW_ERR_DATABASE_TIMEOUT, c"GW_ERR_DATABASE_TIMEOUT", c"the database did not reply in time"),
    (GW_ERR_CONFLICT, c"GW_ERR_CONFLICT", c"a worker took the job with this key meanwhile; nothing was added"),
    (GW_ERR_UNKNOWN_OUTCOME, c"GW_ERR_UNKNOWN_OUTCOME", c"the change may or may not have been made"),
    (GW_ERR_SKIPPED, c"GW_ERR_SKIPPED", c"an interceptor skipped the job"),
    (GW_ERR_REFUSED, c"GW_ERR_REFUSED", c"an interceptor refused the job"),
    (GW_ERR_UNSUPPORTED, c"GW_ERR_UNSUPPORTED", c"not supported here"),
    (GW_ERR_PANIC, c"GW_ERR_PANIC", c"a bug in the library"),
];

fn meaning(status: gw_status_t) -> Option<&'static (gw_status_t, &'static CStr, &'static CStr)> {
    STATUSES.iter().find(|known| known.0 == status)
}

/// The name of a status: `"GW_ERR_CONNECT"`. `"GW_UNKNOWN"` for an unknown number. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_status_name(status: gw_status_t) -> *const c_char {
    meaning(status).map_or(c"GW_UNKNOWN", |known| known.1).as_ptr()
}

/// A short text that explains a status. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_status_text(status: gw_status_t) -> *const c_char {
    meaning(status).map_or(c"a status that this version does not know", |known| known.2).as_ptr()
}

/// The status at `index`, from 0; INT32_MIN after the last. For generating bindings.
#[unsafe(no_mangle)]
pub extern "C" fn gw_status_at(index: usize) -> gw_status_t {
    STATUSES.get(index).map_or(i32::MIN, |known| known.0)
}
