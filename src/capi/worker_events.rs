//! Pulling events from a worker.

use super::boundary::read;
use super::call::call;
use super::error::gw_error_t;
use super::event::gw_event_t;
use super::event_queue::give_next;
use super::status::gw_status_t;
use super::worker::{self, gw_worker_t};

/// Writes the next event to `event`, of those registered without a handler. GW_OK, or GW_TIMEOUT after `timeout_ms`, or
/// GW_STOPPED if the worker has ended and all its events were delivered. GW_ERR_DEADLOCK if called with a timeout
/// within a function that the library calls. The caller frees the event with `gw_event_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_next_event(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    event: *mut *mut gw_event_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let queue = worker::events(worker)?;
        give_next(&queue, timeout_ms, event)
    })
}

/// A file descriptor to poll for reading. It is readable while `gw_worker_next_event` with a timeout of 0 would return
/// anything but GW_TIMEOUT. The rules are those of `gw_worker_fd`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_event_fd(worker: *const gw_worker_t) -> i32 {
    read(-1, || Ok(worker::events(worker)?.fd()))
}
