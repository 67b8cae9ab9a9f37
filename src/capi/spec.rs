//! Specifications of jobs to add.

use super::boundary::{put, read, wanted};
use super::call::{call, status_of};
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle::{self, KindSlab, Value, give};
use super::status::{GW_ERR_JSON, GW_OK, gw_status_t};
use super::{json, text};
use crate::job::spec::check_run_at;
use crate::job::trace;
use crate::{JobKeyMode, JobSpec, RawJob, Schema, TaskName};
use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::ffi::c_char;

/// Key mode: the new job's settings replace all settings of a waiting job with this key.
pub const GW_KEY_REPLACE: i32 = 1;
/// Key mode: as GW_KEY_REPLACE, but a job that was never tried keeps its run_at.
pub const GW_KEY_PRESERVE_RUN_AT: i32 = 2;
/// Key mode: if any job has this key, nothing changes, even if that job runs or has failed permanently.
pub const GW_KEY_UNSAFE_DEDUPE: i32 = 3;

/// SQL style: parameters are `$1` to `$9`.
pub const GW_SQL_DOLLAR: i32 = 1;
/// SQL style: parameters are `%s`, in order.
pub const GW_SQL_FORMAT: i32 = 2;
/// SQL style: parameters are `:identifier`, `:payload` and so on.
pub const GW_SQL_NAMED: i32 = 3;
/// SQL style: parameters are `%(identifier)s`, `%(payload)s` and so on.
pub const GW_SQL_PYFORMAT: i32 = 4;

/// The specification of a job to add. Thread-safe. It can be used for any number of jobs. The caller frees it with
/// `gw_spec_free`.
pub struct gw_spec_t;

pub(super) struct SpecValue(Mutex<Draft>);

/// The fields as they were set. Their limits are checked when the job is checked or added.
struct Draft {
    job: RawJob,
    run_at_us: Option<i64>,
    /// The failures of setters, by field, until that field is set again. Setters return only a status; the check
    /// returns the failure.
    refused: BTreeMap<&'static str, Failure>,
}

impl Value for SpecValue {
    const KIND: u64 = 2;
    const NAME: &'static str = "spec";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<SpecValue> = KindSlab::new();
        &SLAB
    }
}

impl SpecValue {
    /// The job, with all limits checked and its trace context in the payload.
    pub(super) fn checked(&self) -> Result<RawJob, Failure> {
        let (RawJob { identifier, payload, mut spec }, run_at_us) = {
            let draft = self.0.lock();
            if let Some(failure) = draft.refused.values().next() {
                return Err(failure.clone());
            }
            (draft.job.clone(), draft.run_at_us)
        };
        spec.run_at = run_at_us.map(|micros| time("run_at", micros)).transpose()?;
        TaskName::new(&identifier)?;
        spec.check()?;
        let payload = match spec.traceparent.take() {
            None => payload,
            Some(traceparent) => {
                trace::check(&traceparent)?;
                trace::carry(&payload, &traceparent).ok_or_else(|| {
                    Failure::config("traceparent: is stored in the payload, so the payload must be a JSON object")
                })?
            }
        };
        Ok(RawJob { identifier, payload, spec })
    }
}

/// Changes a field of a spec. Limits are checked later, when the job is checked or added.
fn change(
    spec: *mut gw_spec_t,
    field: &'static str,
    work: impl FnOnce(&mut RawJob) -> Result<(), Failure>,
) -> gw_status_t {
    status_of(|| {
        let spec = handle::look::<SpecValue, _>(spec)?;
        let mut draft = spec.0.lock();
        work(&mut draft.job).inspect_err(|failure| _ = draft.refused.insert(field, failure.clone()))
    })
}

/// Sets a field of a spec. This clears an earlier failure of the field.
fn set(
    spec: *mut gw_spec_t,
    field: &'static str,
    work: impl FnOnce(&mut RawJob) -> Result<(), Failure>,
) -> gw_status_t {
    if let Ok(spec) = handle::look::<SpecValue, _>(spec) {
        spec.0.lock().refused.remove(field);
    }
    change(spec, field, work)
}

/// Converts a time from C, in microseconds since 1970.
pub(super) fn time(name: &str, unix_us: i64) -> Result<DateTime<Utc>, Failure> {
    let time = DateTime::from_timestamp_micros(unix_us)
        .ok_or_else(|| Failure::config(format!("{name}: {unix_us} microseconds since 1970 is outside the calendar")))?;
    check_run_at(time)?;
    Ok(time)
}

/// Makes a specification for a job of this task, 1 to 128 characters, with payload `{}` and the defaults of the
/// database. The length is checked when the job is checked or added. NULL if `task` is NULL or not UTF-8. The caller
/// frees it with `gw_spec_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_new(task: *const c_char) -> *mut gw_spec_t {
    read(std::ptr::null_mut(), || {
        // SAFETY: see "Rules" in the header.
        let identifier = unsafe { text::required("task", task) }?.to_owned();
        let job = RawJob { identifier, payload: "{}".to_owned(), spec: JobSpec::new() };
        Ok(give(SpecValue(Mutex::new(Draft { job, run_at_us: None, refused: BTreeMap::new() }))))
    })
}

/// Sets the payload: JSON text, copied and stored byte for byte. `len` is in bytes and may be GW_NUL. GW_ERR_JSON if it
/// is not JSON; `gw_spec_check` then reports line and column.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_payload(spec: *mut gw_spec_t, payload: *const c_char, len: usize) -> gw_status_t {
    set(spec, "payload", |job| {
        // SAFETY: see "Rules" in the header.
        let payload = unsafe { text::sized("payload", payload, len) }?;
        serde_json::from_str::<&RawValue>(payload)
            .map_err(|e| Failure::new(GW_ERR_JSON, format!("payload: is not JSON ({})", json::place(&e))))?;
        job.payload = payload.to_owned();
        Ok(())
    })
}

/// Sets the named queue, at most 128 characters. Jobs of one queue run one after the other. NULL sets none, the
/// default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_queue(spec: *mut gw_spec_t, queue: *const c_char) -> gw_status_t {
    set(spec, "queue", |job| {
        // SAFETY: see "Rules" in the header.
        job.spec.queue_name = unsafe { text::optional("queue", queue) }?.map(str::to_owned);
        Ok(())
    })
}

/// Sets the time before which the job does not start, in microseconds since 1970, within the years 1 to 9999. Default:
/// now, by the database's clock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_run_at(spec: *mut gw_spec_t, unix_us: i64) -> gw_status_t {
    status_of(|| {
        handle::look::<SpecValue, _>(spec)?.0.lock().run_at_us = Some(unix_us);
        Ok(())
    })
}

/// Sets how often the job is tried, 1 to 32767. Default: 25.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_max_attempts(spec: *mut gw_spec_t, max_attempts: i32) -> gw_status_t {
    set(spec, "max_attempts", |job| {
        job.spec.max_attempts = Some(max_attempts);
        Ok(())
    })
}

/// Sets the priority, -32768 to 32767. Jobs with a lower number run first. Default: 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_priority(spec: *mut gw_spec_t, priority: i32) -> gw_status_t {
    set(spec, "priority", |job| {
        job.spec.priority = Some(priority);
        Ok(())
    })
}

/// Sets the key, 1 to 512 characters, and the key mode: GW_KEY_REPLACE, GW_KEY_PRESERVE_RUN_AT or GW_KEY_UNSAFE_DEDUPE.
/// The mode decides what happens if a job with this key exists. A NULL key sets none, the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_key(spec: *mut gw_spec_t, key: *const c_char, mode: i32) -> gw_status_t {
    set(spec, "key", |job| {
        // SAFETY: see "Rules" in the header.
        let key = unsafe { text::optional("key", key) }?.map(str::to_owned);
        let mode = match mode {
            GW_KEY_REPLACE if key.is_none() => None,
            GW_KEY_REPLACE => Some(JobKeyMode::Replace),
            GW_KEY_PRESERVE_RUN_AT => Some(JobKeyMode::PreserveRunAt),
            GW_KEY_UNSAFE_DEDUPE => Some(JobKeyMode::UnsafeDedupe),
            other => return Err(Failure::invalid(format!("key mode: {other} is none of GW_KEY_..."))),
        };
        (job.spec.job_key, job.spec.job_key_mode) = (key, mode);
        Ok(())
    })
}

/// Adds a flag. Workers can be configured to run only jobs with certain flags, or to leave them out. May be called
/// repeatedly.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_add_flag(spec: *mut gw_spec_t, flag: *const c_char) -> gw_status_t {
    change(spec, "flag", |job| {
        // SAFETY: see "Rules" in the header.
        let flag = unsafe { text::required("flag", flag) }?.to_owned();
        job.spec.flags.get_or_insert_default().push(flag);
        Ok(())
    })
}

/// Sets the W3C trace context of the job. It is stored in the payload as `_trace.traceparent`, so the payload must be a
/// JSON object. NULL sets none, the default.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_set_traceparent(spec: *mut gw_spec_t, traceparent: *const c_char) -> gw_status_t {
    set(spec, "traceparent", |job| {
        // SAFETY: see "Rules" in the header.
        job.spec.traceparent = unsafe { text::optional("traceparent", traceparent) }?.map(str::to_owned);
        Ok(())
    })
}

/// Checks all fields against their limits, as adding the job does. GW_ERR_CONFIG names the field and the limit.
///
/// If a setter has refused a value, this call returns that error. The job is not added until the field is set again.
/// Does not use the network.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_check(spec: *const gw_spec_t, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || handle::look::<SpecValue, _>(spec)?.checked().map(|_| GW_OK))
}

/// Frees a spec. NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_spec_free(spec: *mut gw_spec_t) {
    read((), || handle::free::<SpecValue, _>(spec));
}

/// The names of the statement's parameters, in order.
const PARAMETERS: [&str; 9] =
    ["identifier", "payload", "queue_name", "run_at", "max_attempts", "job_key", "priority", "flags", "job_key_mode"];

/// A quoted name, with `:` and `%` written as PostgreSQL's Unicode escapes. Some drivers look for parameters within
/// quotes too, and they differ in how a doubled mark is read there.
fn without_marks(name: &str) -> String {
    let name = name.replace('\\', r"\\").replace('"', "\"\"");
    format!("U&\"{}\"", name.replace(':', r"\003a").replace('%', r"\0025"))
}

/// Writes the SQL statement that adds a job to `sql`, for a transaction of the caller's own. The caller frees it with
/// `gw_string_free`. Does not use the network.
///
/// The parameters, in this order and with these names: identifier text, payload text (JSON), queue_name text, run_at
/// timestamptz, max_attempts int4, job_key text, priority int4, flags text[], job_key_mode text (`replace`,
/// `preserve_run_at` or `unsafe_dedupe`). All but the first two may be null. The statement casts each, so a driver may
/// send text. Check the values with `gw_spec_check` first.
///
/// `schema` NULL means `graphile_worker`. `style` is one of GW_SQL_DOLLAR, GW_SQL_FORMAT, GW_SQL_NAMED,
/// GW_SQL_PYFORMAT. In all styles but GW_SQL_DOLLAR, a `:` or `%` in the schema's name is written as a Unicode escape,
/// so that no driver takes it for a parameter.
///
/// The statement returns one row, the job, with its id first. If it returns no row, a worker has just taken the job
/// with this key, and nothing was added. In a READ COMMITTED transaction, repeat the statement at most 20 times, some
/// milliseconds apart. Under another isolation level, only a new transaction can succeed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_sql_add_job(
    schema: *const c_char,
    style: i32,
    sql: *mut *mut c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("sql", sql)?;
        // SAFETY: see "Rules" in the header.
        let schema = unsafe { text::optional("schema", schema) }?.map_or_else(|| Ok(Schema::default()), Schema::new)?;
        // A driver must not take a part of the schema's name for a parameter.
        let quoted = match schema.name().contains([':', '%']) && style != GW_SQL_DOLLAR {
            true => without_marks(schema.name()),
            false => schema.quoted().to_owned(),
        };
        let parameter = |place: usize| match style {
            GW_SQL_DOLLAR => Ok(format!("${}", place + 1)),
            GW_SQL_FORMAT => Ok("%s".to_owned()),
            GW_SQL_NAMED => Ok(format!(":{}", PARAMETERS[place])),
            GW_SQL_PYFORMAT => Ok(format!("%({})s", PARAMETERS[place])),
            other => Err(Failure::invalid(format!("style: {other} is none of GW_SQL_..."))),
        };
        let mut statement = String::new();
        for line in include_str!("../sql/enqueue/add_job.sql").lines().filter(|line| !line.starts_with("--")) {
            let mut parts = line.split('$');
            statement.push_str(parts.next().unwrap_or_default());
            for part in parts {
                let (place, rest) = part.split_at(1);
                statement.push_str(&parameter(place.parse::<usize>().expect("the statement has only $1 to $9") - 1)?);
                statement.push_str(rest);
            }
            statement.push('\n');
        }
        let statement = statement.replace(":GRAPHILE_WORKER_SCHEMA", &quoted);
        // SAFETY: see "Rules" in the header.
        unsafe { put(sql, text::give(statement.trim_end())) };
        Ok(GW_OK)
    })
}
