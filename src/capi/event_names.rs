//! The names of the events.

use super::failure::Failure;
use std::ffi::{CStr, c_char};
use std::ptr;

pub(super) const OBSERVED: [&CStr; 21] = [
    c"WorkerInit",
    c"WorkerStart",
    c"WorkerShutdown",
    c"WorkerRecovered",
    c"JobFetch",
    c"JobStart",
    c"JobComplete",
    c"JobFail",
    c"JobPermanentlyFail",
    c"JobInterrupted",
    c"JobLost",
    c"JobTimeout",
    c"CronTick",
    c"CronJobScheduled",
    c"LocalQueueInit",
    c"LocalQueueSetMode",
    c"LocalQueueGetJobsComplete",
    c"LocalQueueReturnJobs",
    c"LocalQueueRefetchDelayStart",
    c"LocalQueueRefetchDelayAbort",
    c"LocalQueueRefetchDelayExpired",
];

pub(super) const DECIDED: [&CStr; 4] = [c"BeforeJobRun", c"AfterJobRun", c"BeforeJobSchedule", c"JobRecovery"];

/// The name of a known event. If the name is one of `others`, the error is `advice`.
pub(super) fn find(
    names: &'static [&'static CStr],
    others: &[&CStr],
    advice: &str,
    name: &str,
) -> Result<&'static str, Failure> {
    let all: Vec<&'static str> = names.iter().filter_map(|known| known.to_str().ok()).collect();
    all.iter().find(|known| **known == name).copied().ok_or_else(|| {
        let elsewhere = others.iter().any(|other| other.to_bytes() == name.as_bytes());
        Failure::config(match elsewhere {
            true => format!("event {name:?}: {advice}"),
            false => format!("event {name:?}: is not one of {}", all.join(", ")),
        })
    })
}

/// The name of the event at `index`, from 0; NULL after the last. The last four names are those that can be
/// intercepted. Static text.
#[unsafe(no_mangle)]
pub extern "C" fn gw_event_name_at(index: usize) -> *const c_char {
    OBSERVED.iter().chain(&DECIDED).nth(index).map_or(ptr::null(), |name| name.as_ptr())
}
