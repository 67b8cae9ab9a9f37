//! Whether this thread is within a function of the caller's. Such a thread must not wait for the library.

use super::failure::Failure;
use super::status::GW_ERR_DEADLOCK;
use std::cell::Cell;

thread_local! {
    /// How many of the caller's functions this thread is in.
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Calls a function of the caller's. Until it returns, this thread is marked, so that calls that would wait fail.
pub(super) fn inside<T>(function: impl FnOnce() -> T) -> T {
    INSIDE.set(INSIDE.get() + 1);
    let answer = function();
    INSIDE.set(INSIDE.get() - 1);
    answer
}

pub(super) fn is_inside() -> bool {
    INSIDE.get() > 0
}

/// Refuses a call that waits on a thread of the library: it could wait for itself.
pub(super) fn not_inside(doing: &str) -> Result<(), Failure> {
    match is_inside() {
        true => Err(Failure::new(GW_ERR_DEADLOCK, format!("a function that the library calls must not {doing}"))),
        false => Ok(()),
    }
}
