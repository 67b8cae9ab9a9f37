//! The log sink: a function of the caller's, a queue, or standard error.

use super::call::{call, status_of};
use super::error::gw_error_t;
use super::event::{EventValue, gw_event_t};
use super::event_queue::{EventQueue, give_next};
use super::failure::Failure;
use super::handle::forks;
use super::status::{GW_ERR_DEADLOCK, GW_STOPPED, gw_status_t};
use super::text;
use super::user_data::{UserData, gw_free_fn};
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use parking_lot::RwLock;
use serde_json::{Map, json};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::io::Write;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, SystemTime};

/// Log level: no records.
pub const GW_LOG_OFF: i32 = 0;
/// Log level: a person must act.
pub const GW_LOG_ERROR: i32 = 1;
/// Log level: something failed and is retried.
pub const GW_LOG_WARN: i32 = 2;
/// Log level: the life of workers and jobs.
pub const GW_LOG_INFO: i32 = 3;
/// Log level: decisions.
pub const GW_LOG_DEBUG: i32 = 4;
/// Log level: all records.
pub const GW_LOG_TRACE: i32 = 5;

/// A log record. All its texts are valid within the call only. New fields are only added at the end.
#[repr(C)]
pub struct gw_log_record_t {
    /// The size of this struct in bytes, as the library was compiled.
    pub struct_size: usize,
    /// The time, in microseconds since 1970.
    pub time_us: i64,
    /// One of GW_LOG_...
    pub level: i32,
    /// Zero.
    pub reserved: i32,
    /// The part of the library that logs.
    pub target: *const c_char,
    /// The message. It is the same text for every event of one kind.
    pub message: *const c_char,
    /// The details as a JSON object: job_id, task, queue, attempt, worker_id, error and others.
    pub fields: *const c_char,
}

/// Receives a log record, on the thread that logs it; several threads may call it at once. It must be quick, and must
/// not call the library. Records that this thread logs during the call are dropped.
pub type gw_log_fn = Option<unsafe extern "C" fn(record: *const gw_log_record_t, user_data: *mut c_void)>;

enum Sink {
    Function { function: unsafe extern "C" fn(*const gw_log_record_t, *mut c_void), user_data: UserData },
    Queue(Arc<EventQueue>),
}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Replaces [`SINK`] in a forked child, if a thread of the parent was in the sink at the fork. That thread holds the
/// lock, and does not exist in the child.
static SINK_OF_A_CHILD: AtomicPtr<RwLock<Option<Sink>>> = AtomicPtr::new(ptr::null_mut());

/// How long a forked child waits for the lock of the sink, which a thread of its own may hold.
const CHILD_LOCK_TIMEOUT: Duration = Duration::from_secs(2);

fn sink() -> &'static RwLock<Option<Sink>> {
    // SAFETY: the pointer is NULL or came from a leaked box.
    unsafe { SINK_OF_A_CHILD.load(Ordering::Acquire).as_ref() }.unwrap_or(&SINK)
}

/// Replaces the sink, and returns the old one. No thread is in the old one any more.
fn exchange(new: Option<Sink>) -> Option<Sink> {
    let sink = sink();
    let held = match forks() {
        0 => Some(sink.write()),
        _ => sink.try_write_for(CHILD_LOCK_TIMEOUT),
    };
    match held {
        Some(mut held) => std::mem::replace(&mut *held, new),
        None => {
            SINK_OF_A_CHILD.store(Box::into_raw(Box::new(RwLock::new(new))), Ordering::Release);
            None
        }
    }
}

thread_local! {
    static IN_THE_SINK: Cell<bool> = const { Cell::new(false) };
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Records below warning of other crates, such as the database client, are not of interest.
        metadata.target().starts_with("graphile_worker") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) || IN_THE_SINK.replace(true) {
            return;
        }
        write(record);
        IN_THE_SINK.set(false);
    }

    fn flush(&self) {}
}

fn write(record: &Record) {
    let mut fields = Fields(Map::new());
    let _ = record.key_values().visit(&mut fields);
    let message = record.args().to_string();
    let sink = sink().read();
    let Some(sink) = &*sink else {
        let fields: String = fields.0.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        // `eprintln!` would panic if stderr is a full disk or a closed pipe.
        let _ = writeln!(std::io::stderr(), "[{}] {}: {message}{fields}", record.level(), record.target());
        return;
    };
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let (function, user_data) = match sink {
        Sink::Function { function, user_data } => (function, user_data),
        Sink::Queue(queue) => {
            let json = json!({ "time_us": since.as_micros() as u64, "target": record.target(), "message": message,
                "fields": fields.0 });
            return queue.push(EventValue::new(LEVELS[record.level() as usize], None, json, None));
        }
    };
    let (target, message) = (text::owned(record.target()), text::owned(message));
    let fields = text::owned(serde_json::Value::Object(fields.0).to_string());
    let record = gw_log_record_t {
        struct_size: size_of::<gw_log_record_t>(),
        time_us: since.as_micros() as i64,
        level: record.level() as i32,
        reserved: 0,
        target: target.as_ptr(),
        message: message.as_ptr(),
        fields: fields.as_ptr(),
    };
    // SAFETY: the caller passed function and `user_data` together, and the record lives until the function returns.
    unsafe { function(&record, user_data.pointer) };
}

/// A record's fields as JSON.
struct Fields(Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let json = match (value.to_i64(), value.to_u64(), value.to_f64(), value.to_bool()) {
            (Some(number), ..) => number.into(),
            (_, Some(number), ..) => number.into(),
            (.., Some(yes)) => yes.into(),
            (_, _, Some(number), _) => number.into(),
            _ => value.to_string().into(),
        };
        self.0.insert(key.to_string(), json);
        Ok(())
    }
}

/// Receives the log records of this process, unless a Rust program has already installed a logger.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&Logger).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    });
}

/// Sends log records up to `max_level` to `sink`, for the whole process. If `sink` is NULL, they go to standard error.
/// Without any call, warnings and errors go to standard error. Payloads and passwords are never logged.
///
/// The call waits until no thread is in the previous function, and frees that function's `user_data` before it returns.
/// GW_ERR_DEADLOCK within a log function. GW_ERR_INVALID for an unknown level.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_log_set_sink(
    sink: gw_log_fn,
    user_data: *mut c_void,
    free_fn: gw_free_fn,
    max_level: i32,
) -> gw_status_t {
    status_of(|| {
        let user_data = UserData { pointer: user_data, free: free_fn };
        replace(sink.map(|function| Sink::Function { function, user_data }), max_level)
    })
}

/// Keeps log records up to `max_level` for `gw_log_next`, for the whole process. For runtimes that cannot run functions
/// on threads of the library. At most 1024 records wait; an event `EventsDropped` reports how many were dropped.
/// `gw_log_set_sink` ends the queue.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_log_set_queue(max_level: i32) -> gw_status_t {
    status_of(|| replace(Some(Sink::Queue(Arc::new(EventQueue::new()?))), max_level))
}

/// Writes the next waiting log record to `record`: an event whose name is its level (`error`, `warn`, `info`, `debug`,
/// `trace`), and whose JSON has time_us, target, message and fields. The caller frees it with `gw_event_free`.
///
/// GW_OK; GW_TIMEOUT after `timeout_ms`; GW_STOPPED if records are not queued, or no longer. GW_ERR_DEADLOCK if called
/// with a timeout within a function that the library calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_log_next(
    timeout_ms: i64,
    record: *mut *mut gw_event_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let queue = match &*sink().read() {
            Some(Sink::Queue(queue)) => queue.clone(),
            _ => return Ok(GW_STOPPED),
        };
        give_next(&queue, timeout_ms, record)
    })
}

/// The names of the levels, by their number.
const LEVELS: [&CStr; 6] = [c"off", c"error", c"warn", c"info", c"debug", c"trace"];

/// Sends all later records to `sink`.
fn replace(sink: Option<Sink>, max_level: i32) -> Result<(), Failure> {
    let level = match max_level {
        GW_LOG_OFF => LevelFilter::Off,
        GW_LOG_ERROR => LevelFilter::Error,
        GW_LOG_WARN => LevelFilter::Warn,
        GW_LOG_INFO => LevelFilter::Info,
        GW_LOG_DEBUG => LevelFilter::Debug,
        GW_LOG_TRACE => LevelFilter::Trace,
        other => return Err(Failure::invalid(format!("max_level: {other} is none of GW_LOG_..."))),
    };
    if IN_THE_SINK.get() {
        return Err(Failure::new(GW_ERR_DEADLOCK, "a log function cannot replace itself"));
    }
    install();
    let before = exchange(sink);
    log::set_max_level(level);
    if let Some(Sink::Queue(queue)) = &before {
        queue.close();
    }
    drop(before);
    Ok(())
}
