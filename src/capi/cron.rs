//! Parsing crontab text, and previews of its entries.

use super::boundary::{put, read, wanted};
use super::call::call;
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Value, give};
use super::status::{GW_ERR_CRONTAB, GW_OK, gw_status_t};
use super::text;
use crate::{Cron, ErrorKind};
use chrono::DateTime;
use std::ffi::c_char;
use std::ptr;

/// A parsed crontab. Immutable and thread-safe. The caller frees it with `gw_crontab_free`.
pub struct gw_crontab_t;

pub(super) struct CrontabValue(Vec<Cron>);

impl Value for CrontabValue {
    const KIND: u64 = 4;
    const NAME: &'static str = "crontab";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<CrontabValue> = KindSlab::new();
        &SLAB
    }
}

/// Parses crontab text; an error names line and column.
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

/// Parses crontab text and writes the crontab to `out`. Each line has five fields, a task, options and a payload, as in
/// Node's graphile-worker. `tz=Area/City` is a further option. A task's name may be in quotes.
///
/// GW_ERR_CRONTAB names line and column. The caller frees the crontab with `gw_crontab_free`.
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

/// The number of entries. 0 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_crontab_len(crontab: *const gw_crontab_t) -> usize {
    read(0, || Ok(handle::look::<CrontabValue, _>(crontab)?.0.len()))
}

/// The entry at `index`, from 0, as a JSON object: identifier (its id, or else its task), task. NULL after the last
/// entry. The caller frees it with `gw_string_free`.
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

/// Writes the next times at which an entry is due to `out`, at most `capacity`, and returns how many it wrote.
/// `after_us` and the times are microseconds since 1970; each time is later than `after_us`. `out` has room for
/// `capacity` numbers.
///
/// Returns 0 if `out` is NULL, `capacity` is above GW_LIST_MAX, the handle is bad, or the entry is never due.
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
            // SAFETY: the caller promises room for `capacity` times.
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
