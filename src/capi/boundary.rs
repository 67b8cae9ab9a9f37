//! What crosses the C API by value: results read within [`read`], results written to the caller's pointers, durations.

use super::failure::Failure;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Reads a value of a handle. Returns `otherwise` if the handle is bad or `work` fails.
pub(super) fn read<T>(otherwise: T, work: impl FnOnce() -> Result<T, Failure>) -> T {
    catch_unwind(AssertUnwindSafe(work)).ok().and_then(Result::ok).unwrap_or(otherwise)
}

/// Writes a result to `out`, unless `out` is NULL.
///
/// # Safety
/// `out` is NULL or may be written to.
pub(super) unsafe fn put<T>(out: *mut T, value: T) {
    if !out.is_null() {
        // SAFETY: `out` is not NULL, and the caller promises that it may be written to.
        unsafe { *out = value };
    }
}

/// Refuses a call whose result pointer is NULL, before the call does anything.
pub(super) fn wanted<T>(name: &str, out: *mut T) -> Result<(), Failure> {
    if out.is_null() { Err(Failure::invalid(format!("{name}: is NULL"))) } else { Ok(()) }
}

/// Converts milliseconds from C to a duration; below 0 is an error.
pub(super) fn millis(name: &str, millis: i64) -> Result<Duration, Failure> {
    let span = u64::try_from(millis).map(Duration::from_millis);
    span.map_err(|_| Failure::config(format!("{name}: {millis} ms is negative")))
}
