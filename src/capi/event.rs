//! Events: a name and JSON. Knows nothing of what happened.

use super::boundary::read;
use super::handle::{self, KindSlab, Value};
use super::{json, text};
use crate::Job;
use serde_json::Value as Json;
use std::ffi::{CStr, CString, c_char};
use std::ptr;

/// An event. Immutable and thread-safe. The caller owns an event from `gw_worker_next_event` or `gw_log_next`, and
/// frees it with `gw_event_free`. Observers and interceptors receive a borrowed event, valid until they return.
pub struct gw_event_t;

pub(super) struct EventValue {
    name: &'static CStr,
    json: CString,
    job_id: i64,
    /// Lent to a function of the caller's, which cannot free it.
    borrowed: bool,
}

impl Value for EventValue {
    const KIND: u64 = 8;
    const NAME: &'static str = "event";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<EventValue> = KindSlab::new();
        &SLAB
    }
}

impl EventValue {
    pub(super) fn new(name: &'static CStr, job: Option<&Job>, mut fields: Json, worker_id: Option<&str>) -> Self {
        if let Some(fields) = fields.as_object_mut() {
            job.inspect(|&about| _ = fields.insert("job".into(), json::job(about)));
            worker_id.inspect(|&id| _ = fields.insert("worker_id".into(), id.into()));
        }
        Self { name, json: text::owned(fields.to_string()), job_id: job.map_or(0, Job::id), borrowed: false }
    }

    /// The same event, to lend to a function of the caller's.
    pub(super) fn lent(self) -> Self {
        Self { borrowed: true, ..self }
    }
}

/// The event's name: `"JobComplete"`. Static text. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_name(event: *const gw_event_t) -> *const c_char {
    read(ptr::null(), || Ok(handle::look::<EventValue, _>(event)?.name.as_ptr()))
}

/// The event's fields as a JSON object. Valid until the event is freed. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_json(event: *const gw_event_t) -> *const c_char {
    read(ptr::null(), || Ok(handle::look::<EventValue, _>(event)?.json.as_ptr()))
}

/// The id of the event's job; 0 if the event is not about a job.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_job_id(event: *const gw_event_t) -> i64 {
    read(0, || Ok(handle::look::<EventValue, _>(event)?.job_id))
}

/// Frees an event. NULL and borrowed events do nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_event_free(event: *mut gw_event_t) {
    read((), || {
        let borrowed = handle::look::<EventValue, _>(event)?.borrowed;
        if borrowed { Ok(()) } else { handle::free::<EventValue, _>(event) }
    });
}
