//! The standard library's locks, for what a thread may wait in for long. Not parking_lot's: its one list of waiting threads
//! outlives a fork, and a thread of the child that waits may be woken never.

use std::sync::{LockResult, PoisonError};

/// What a lock guards, also after a panic under it: as parking_lot has it.
pub(crate) fn held<T>(answer: LockResult<T>) -> T {
    answer.unwrap_or_else(PoisonError::into_inner)
}
