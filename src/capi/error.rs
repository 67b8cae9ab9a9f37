//! Error objects: a failure, kept for the caller.

use super::boundary::read;
use super::failure::Failure;
use super::handle::{self, KindSlab, Value};
use super::status::gw_status_t;
use super::text;
use std::ffi::{CString, c_char};
use std::ptr;

/// An error. Immutable and thread-safe. The caller frees it with `gw_error_free`.
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

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<ErrorValue> = KindSlab::new();
        &SLAB
    }
}

/// The status of the call that returned this error. GW_ERR_INVALID if `error` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_status(error: *const gw_error_t) -> gw_status_t {
    match handle::look::<ErrorValue, _>(error) {
        Ok(error) => error.status,
        Err(failure) => failure.status,
    }
}

/// The message: what went wrong, and what to do about it. It contains no passwords and no payloads. Valid until the
/// error is freed. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_message(error: *const gw_error_t) -> *const c_char {
    read(ptr::null(), || Ok(handle::look::<ErrorValue, _>(error)?.message.as_ptr()))
}

/// PostgreSQL's SQLSTATE, five characters; NULL if the error does not come from the database. Valid until the error is
/// freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_sqlstate(error: *const gw_error_t) -> *const c_char {
    read(ptr::null(), || {
        Ok(handle::look::<ErrorValue, _>(error)?.sqlstate.as_ref().map_or(ptr::null(), |state| state.as_ptr()))
    })
}

/// Whether the same call may succeed later: after a broken connection, a deadlock, or while a server starts. false on a
/// bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_is_retryable(error: *const gw_error_t) -> bool {
    read(false, || Ok(handle::look::<ErrorValue, _>(error)?.retryable))
}

/// Frees an error. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_error_free(error: *mut gw_error_t) {
    read((), || handle::free::<ErrorValue, _>(error));
}
