//! The frame of every function that can fail: catches panics, and turns a failure into a status and an error object.
//! Knows no handle but errors.

use super::error::{ErrorValue, gw_error_t};
use super::failure::Failure;
use super::handle;
use super::status::{GW_ERR_PANIC, GW_OK, gw_status_t};
use crate::hooks::panic_text;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Makes one call of the library. A failure becomes a status, and an error object if the caller passed a place for it.
pub(super) fn call(error: *mut *mut gw_error_t, work: impl FnOnce() -> Result<gw_status_t, Failure>) -> gw_status_t {
    let result =
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(Failure::new(GW_ERR_PANIC, panic_text(panic))));
    let (status, object) = match result {
        Ok(status) => (status, std::ptr::null_mut()),
        Err(failure) => {
            let status = failure.status;
            (status, if error.is_null() { std::ptr::null_mut() } else { handle::give(ErrorValue::new(failure)) })
        }
    };
    if !error.is_null() {
        // SAFETY: `error` is not NULL, and the caller promises that it may be written to.
        unsafe { *error = object };
    }
    status
}

/// The same for calls without an error object.
pub(super) fn status_of(work: impl FnOnce() -> Result<(), Failure>) -> gw_status_t {
    call(std::ptr::null_mut(), || work().map(|()| GW_OK))
}
