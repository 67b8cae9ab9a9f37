//! Helper for the standard library's locks, which are used wherever a thread may wait for a long time. parking_lot must
//! not be used there, because a forked child inherits its list of waiting threads. A thread of the child that waits may
//! then never wake up.

use std::sync::{LockResult, PoisonError};

/// Returns the guard even if another thread panicked while it held the lock. parking_lot behaves in the same way.
pub(crate) fn held<T>(answer: LockResult<T>) -> T {
    answer.unwrap_or_else(PoisonError::into_inner)
}
