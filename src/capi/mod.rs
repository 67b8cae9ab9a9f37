//! The C API: what `include/graphile_worker.h` declares. It only converts. Each function checks its handles, reads its
//! arguments, makes one call of the library, and returns the result.
//!
//! Every function goes through [`call`] or [`read`], which catch panics. Times are microseconds since 1970, timeouts
//! and delays milliseconds. Numbers from C are never Rust enums, so an unknown number is an error.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)] // The caller's duties are in section "Rules" of the header.
#![allow(non_camel_case_types)] // The names are C's.

mod client;
mod config;
mod cron;
mod events;
mod handle;
mod job;
mod json;
mod keys;
mod library;
mod log;
mod spec;
mod status;
mod task;
mod text;
mod user_data;
mod wakeup;
mod worker;

use crate::hooks::panic_text;
use status::{ErrorValue, Failure, GW_ERR_PANIC, GW_OK, gw_error_t, gw_status_t};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Makes one call of the library. A failure becomes a status, and an error object if the caller passed a place for it.
fn call(error: *mut *mut gw_error_t, work: impl FnOnce() -> Result<gw_status_t, Failure>) -> gw_status_t {
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
fn status_of(work: impl FnOnce() -> Result<(), Failure>) -> gw_status_t {
    call(std::ptr::null_mut(), || work().map(|()| GW_OK))
}

/// Reads a value of a handle. Returns `otherwise` if the handle is bad or `work` fails.
fn read<T>(otherwise: T, work: impl FnOnce() -> Result<T, Failure>) -> T {
    catch_unwind(AssertUnwindSafe(work)).ok().and_then(Result::ok).unwrap_or(otherwise)
}

/// Writes a result to `out`, unless `out` is NULL.
///
/// # Safety
/// `out` is NULL or may be written to.
unsafe fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: `out` is not NULL, and the caller promises that it may be written to.
        unsafe { *out = value };
    }
}

/// Refuses a call whose result pointer is NULL, before the call does anything.
fn wanted<T>(name: &str, out: *mut T) -> Result<(), Failure> {
    if out.is_null() { Err(Failure::invalid(format!("{name}: is NULL"))) } else { Ok(()) }
}

/// Converts milliseconds from C to a duration; below 0 is an error.
fn millis(name: &str, millis: i64) -> Result<Duration, Failure> {
    let span = u64::try_from(millis).map(Duration::from_millis);
    span.map_err(|_| Failure::config(format!("{name}: {millis} ms is negative")))
}

thread_local! {
    /// How many of the caller's functions this thread is in.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Calls a function of the caller's. Until it returns, this thread is marked, so that calls that would wait fail.
fn inside<T>(function: impl FnOnce() -> T) -> T {
    INSIDE.set(INSIDE.get() + 1);
    let answer = function();
    INSIDE.set(INSIDE.get() - 1);
    answer
}

fn is_inside() -> bool {
    INSIDE.get() > 0
}
