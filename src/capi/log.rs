//! Where log records go: to the host's function, or to standard error.

use super::events::{EventQueue, EventValue, give_next, gw_event_t};
use super::handle::forks;
use super::status::{Failure, GW_ERR_DEADLOCK, GW_STOPPED, gw_error_t, gw_status_t};
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

/// Level of log records: none at all.
pub const GW_LOG_OFF: i32 = 0;
/// Level of log records: a person must act.
pub const GW_LOG_ERROR: i32 = 1;
/// Level of log records: something failed and is tried again.
pub const GW_LOG_WARN: i32 = 2;
/// Level of log records: a worker's or a job's life.
pub const GW_LOG_INFO: i32 = 3;
/// Level of log records: decisions.
pub const GW_LOG_DEBUG: i32 = 4;
/// Level of log records: everything.
pub const GW_LOG_TRACE: i32 = 5;

/// A log record. All of it is valid within the call only. Fields are only ever added, at the end.
#[repr(C)]
pub struct gw_log_record_t {
    /// The size of the record as this library knows it.
    pub struct_size: usize,
    /// When, in microseconds since 1970.
    pub time_us: i64,
    /// One of GW_LOG_...
    pub level: i32,
    /// Zero.
    pub reserved: i32,
    /// Which part of the library says it.
    pub target: *const c_char,
    /// What it says; the text of one kind of event is always the same.
    pub message: *const c_char,
    /// What it says it of, as a JSON object: job_id, task, queue, attempt, worker_id, error and others.
    pub fields: *const c_char,
}

/// Takes a log record, on whatever thread it comes from. Must be quick, and must not call the library; records that
/// arise meanwhile on the same thread are dropped.
pub type gw_log_fn = Option<unsafe extern "C" fn(record: *const gw_log_record_t, user_data: *mut c_void)>;

enum Sink {
    Function { function: unsafe extern "C" fn(*const gw_log_record_t, *mut c_void), user_data: UserData },
    Queue(Arc<EventQueue>),
}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

/// Instead of it in a forked child, should a thread of the parent have been in the sink at the fork: nobody leaves it
/// there any more.
static SINK_OF_A_CHILD: AtomicPtr<RwLock<Option<Sink>>> = AtomicPtr::new(ptr::null_mut());

/// How long a forked child waits for a thread that may be of its own to leave the sink.
const CHILD_PATIENCE: Duration = Duration::from_secs(2);

fn sink() -> &'static RwLock<Option<Sink>> {
    // SAFETY: it came from a leaked box.
    unsafe { SINK_OF_A_CHILD.load(Ordering::Acquire).as_ref() }.unwrap_or(&SINK)
}

/// Puts another sink in place of this one, which nobody is in any more.
fn exchange(new: Option<Sink>) -> Option<Sink> {
    let sink = sink();
    let held = match forks() {
        0 => Some(sink.write()),
        _ => sink.try_write_for(CHILD_PATIENCE),
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

struct Door;

impl Log for Door {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // The database client says things of its own that are no news to anybody.
        metadata.target().starts_with("graphile_worker") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) || IN_THE_SINK.replace(true) {
            return;
        }
        say(record);
        IN_THE_SINK.set(false);
    }

    fn flush(&self) {}
}

fn say(record: &Record) {
    let mut fields = Fields(Map::new());
    let _ = record.key_values().visit(&mut fields);
    let message = record.args().to_string();
    let sink = sink().read();
    let Some(sink) = &*sink else {
        let fields: String = fields.0.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        // `eprintln!` would panic if it is a full disk or a closed pipe.
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
    // SAFETY: the host gave both together, and the record lives until it returns.
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

/// Takes the records of this process, unless a Rust program around us does so already.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if log::set_logger(&Door).is_ok() {
            log::set_max_level(LevelFilter::Warn);
        }
    });
}

/// Sends log records up to a level to a function of the host's, for the whole process; NULL: to standard error. Without
/// a call, warnings and errors go to standard error. Returns when the function before is not called any more, and has
/// freed its `user_data`. GW_ERR_DEADLOCK within such a function. Payloads and passwords are never logged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_log_set_sink(
    sink: gw_log_fn,
    user_data: *mut c_void,
    free_fn: gw_free_fn,
    max_level: i32,
) -> gw_status_t {
    super::status_of(|| {
        let user_data = UserData { pointer: user_data, free: free_fn };
        replace(sink.map(|function| Sink::Function { function, user_data }), max_level)
    })
}

/// Keeps log records up to a level for `gw_log_next`, for the whole process, instead of calling a function on threads of
/// the library's: for runtimes that cannot have that. At most 1024 wait; an event `EventsDropped` tells how many found
/// no room. `gw_log_set_sink` ends it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_log_set_queue(max_level: i32) -> gw_status_t {
    super::status_of(|| replace(Some(Sink::Queue(Arc::new(EventQueue::new()?))), max_level))
}

/// Gives the next log record that waits: an event whose name is its level (`error`, `warn`, `info`, `debug`, `trace`), and
/// whose JSON has time_us, target, message and fields. GW_OK, GW_TIMEOUT, or GW_STOPPED if none are kept, or not any
/// more. The caller frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_log_next(
    timeout_ms: i64,
    record: *mut *mut gw_event_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    super::call(err, || {
        let queue = match &*sink().read() {
            Some(Sink::Queue(queue)) => queue.clone(),
            _ => return Ok(GW_STOPPED),
        };
        give_next(&queue, timeout_ms, record)
    })
}

/// The names of levels, by their number.
const LEVELS: [&CStr; 6] = [c"off", c"error", c"warn", c"info", c"debug", c"trace"];

/// From now on records go here.
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
