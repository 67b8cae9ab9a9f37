//! Crontab text, read ahead.

use super::handle::{self, Slab, Slabs, Value, give};
use super::status::{Failure, GW_ERR_CRONTAB, GW_OK, gw_error_t, gw_status_t};
use super::{call, put, read, text, wanted};
use crate::{Cron, ErrorKind};
use chrono::DateTime;
use std::ffi::c_char;
use std::ptr;

/// A crontab that was read. Immutable, for any thread; freed with `gw_crontab_free`.
pub struct gw_crontab_t;

pub(super) struct CrontabValue(Vec<Cron>);

impl Value for CrontabValue {
    const KIND: u64 = 4;
    const NAME: &'static str = "crontab";

    fn slab(slabs: &Slabs) -> &Slab<Self> {
        &slabs.crontabs
    }
}

/// Reads crontab text; a mistake is named with its line and column.
pub(super) fn parse(text: &str) -> Result<Vec<Cron>, Failure> {
    Cron::parse(text).map_err(|error| {
        let wrong = error.kind() == ErrorKind::Config;
        let mut failure = Failure::from(error);
        if wrong {
            failure.status = GW_ERR_CRONTAB;
        }
        failure
    })
}

/// Reads crontab text: lines of five fields, a task, options and a payload, as Node's graphile-worker has them, and
/// `tz=Area/City` beside its options. A task's name may stand in quotes. GW_ERR_CRONTAB names line and column. The caller
/// frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_crontab_parse(
    crontab: *const c_char,
    out: *mut *mut gw_crontab_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("out", out)?;
        // SAFETY: see "Rules" in the header.
        let entries = parse(unsafe { text::required("crontab", crontab) }?)?;
        // SAFETY: see "Rules" in the header.
        unsafe { put(out, give(CrontabValue(entries))) };
        Ok(GW_OK)
    })
}

/// How many entries it has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_crontab_len(crontab: *const gw_crontab_t) -> usize {
    read(0, || Ok(handle::look::<CrontabValue, _>(crontab)?.0.len()))
}

/// An entry as JSON: identifier (its id, or else its task), task. NULL after the last. The caller frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_crontab_item_json(crontab: *const gw_crontab_t, index: usize) -> *mut c_char {
    read(ptr::null_mut(), || {
        let crontab = handle::look::<CrontabValue, _>(crontab)?;
        let entry = |cron: &Cron| {
            let json = serde_json::json!({ "identifier": cron.identifier(), "task": cron.task_identifier() });
            text::give(json.to_string())
        };
        Ok(crontab.0.get(index).map_or(ptr::null_mut(), entry))
    })
}

/// Writes when an entry is due next after `after_us`, up to `capacity` times; answers how many were written: 0 if `out` is
/// NULL or `capacity` above GW_LIST_MAX.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_crontab_next(
    crontab: *const gw_crontab_t,
    index: usize,
    after_us: i64,
    out: *mut i64,
    capacity: usize,
) -> usize {
    read(0, || {
        let crontab = handle::look::<CrontabValue, _>(crontab)?;
        let (Some(entry), Some(after)) = (crontab.0.get(index), DateTime::from_timestamp_micros(after_us)) else {
            return Ok(0);
        };
        wanted("out", out)?;
        text::entries("capacity", capacity)?;
        let runs = entry.next_runs_after(after, capacity);
        for (place, at) in runs.iter().enumerate() {
            // SAFETY: the header says that `out` has room for `capacity` times.
            unsafe { *out.add(place) = at.timestamp_micros() };
        }
        Ok(runs.len())
    })
}

/// Frees a crontab. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_crontab_free(crontab: *mut gw_crontab_t) {
    read((), || handle::free::<CrontabValue, _>(crontab));
}
