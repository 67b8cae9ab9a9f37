//! Workers: the handle, and what is set up before the start. Knows nothing of how a start runs.

use super::boundary::{put, wanted};
use super::call::call;
use super::client::{ClientValue, gw_client_t};
use super::config::{ConfigValue, gw_config_t};
use super::error::gw_error_t;
use super::event_queue::EventQueue;
use super::failure::Failure;
use super::handle::{self, KindSlab, Use, Value};
use super::job::Home;
use super::keys::{self, Reader, Values};
use super::process::prepare;
use super::status::{GW_ERR_STATE, GW_OK, gw_status_t};
use super::task::{TaskFunction, gw_task_fn};
use super::user_data::{UserData, gw_free_fn};
use super::wakeup::Wakeup;
use super::{cron, text};
use crate::engine::pull::JobSource;
use crate::tasks::Runner;
use crate::{Cron, HookRegistry, JobDefinition, Plugin, RetryPolicy, Worker};
use parking_lot::{Mutex, RwLock};
use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// Stop mode: the worker claims no more jobs. Running jobs may go on for `shutdown_grace_period`.
pub const GW_STOP_GRACEFUL: i32 = 1;
/// Stop mode: the worker claims no more jobs, and running jobs are cancelled at once.
pub const GW_STOP_ABORT: i32 = 2;

/// Run mode: the worker runs until a stop.
pub const GW_RUN_FOREVER: i32 = 1;
/// Run mode: the worker ends when no job is due.
pub const GW_RUN_ONCE: i32 = 2;

/// Worker state: not started.
pub const GW_STATE_NEW: i32 = 0;
/// Worker state: running.
pub const GW_STATE_RUNNING: i32 = 1;
/// Worker state: a stop was requested, and the worker has not ended.
pub const GW_STATE_STOPPING: i32 = 2;
/// Worker state: ended without an error.
pub const GW_STATE_STOPPED: i32 = 3;
/// Worker state: ended with an error, which `gw_worker_wait` returns.
pub const GW_STATE_FAILED: i32 = 4;

/// A worker. Thread-safe. The caller frees it with `gw_worker_free`.
pub struct gw_worker_t;

pub(super) struct WorkerValue(pub(super) Arc<Inner>);

impl Value for WorkerValue {
    const KIND: u64 = 7;
    const NAME: &'static str = "worker";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<WorkerValue> = KindSlab::new();
        &SLAB
    }
}

pub(super) struct Inner {
    pub(super) values: Values,
    pub(super) setup: Mutex<Setup>,
    pub(super) state: AtomicI32,
    /// Readable while there may be a job to pull.
    pub(super) wakeup: Arc<Wakeup>,
    /// A start is in progress. Functions that it calls must not wait for it.
    pub(super) starting: AtomicBool,
    /// Wakes gw-control. A signal handler may notify it.
    pub(super) control: Wakeup,
    /// One of GW_STOP_..., or 0 for no stop.
    pub(super) stop: AtomicI32,
    pub(super) woken: AtomicBool,
    /// Read recursively, because callbacks run while a thread holds the read lock.
    pub(super) current: RwLock<Option<Current>>,
    /// A standard lock, because callers wait on it for long: see `lock.rs`.
    pub(super) end: std::sync::Mutex<End>,
    pub(super) ended: std::sync::Condvar,
    pub(super) events: Arc<EventQueue>,
    /// The threads gw-worker and gw-control.
    pub(super) hands: Mutex<Vec<JoinHandle<()>>>,
}

/// The result of the last start; `None` while the worker runs.
pub(super) type End = Option<Result<(), (gw_status_t, String)>>;

/// The settings that the caller makes before the start.
#[derive(Default)]
pub(super) struct Setup {
    pub(super) tasks: Vec<TaskSetup>,
    pub(super) crons: Vec<Cron>,
    pub(super) hooks: Vec<Hook>,
    /// The worker was freed: no further start is allowed.
    pub(super) freed: bool,
}

pub(super) struct TaskSetup {
    name: String,
    /// `None` if the task's jobs are pulled.
    pub(super) function: Option<Arc<TaskFunction>>,
    timeout: Option<Duration>,
    backoff: Option<RetryPolicy>,
}

/// A function that registers a hook of the caller's. It is called at each start.
pub(super) type Hook = Arc<dyn Fn(&mut HookRegistry) + Send + Sync>;

/// The hooks of a worker, as a plugin of the library.
pub(super) struct Hooks(pub(super) Vec<Hook>);

impl Plugin for Hooks {
    fn register(self, hooks: &mut HookRegistry) {
        for hook in self.0 {
            hook(hooks);
        }
    }
}

/// The running start, or the last one.
pub(super) struct Current {
    pub(super) worker: Arc<Worker>,
    pub(super) source: JobSource,
    pub(super) home: Arc<Home>,
}

impl Drop for Current {
    fn drop(&mut self) {
        let client: *const gw_client_t = ptr::without_provenance(self.home.client);
        let _ = handle::free::<ClientValue, _>(client);
    }
}

/// Makes a worker without tasks and writes it to `out`. The configuration is copied. Does not use the network.
///
/// GW_ERR_CONFIG if an option is outside its limits, GW_ERR_NOMEM if no sockets or handles are left. The caller frees
/// the worker with `gw_worker_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_new(
    config: *const gw_config_t,
    out: *mut *mut gw_worker_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("out", out)?;
        prepare();
        let values = handle::look::<ConfigValue, _>(config)?.values();
        // All checks that need no database are made here, and not only at the start.
        Reader(&values).options(None)?.check()?;
        let inner = Inner {
            values,
            setup: Mutex::default(),
            state: AtomicI32::new(GW_STATE_NEW),
            wakeup: Arc::new(Wakeup::new()?),
            starting: AtomicBool::new(false),
            control: Wakeup::new()?,
            stop: AtomicI32::new(0),
            woken: AtomicBool::new(false),
            current: RwLock::new(None),
            end: std::sync::Mutex::default(),
            ended: std::sync::Condvar::new(),
            events: Arc::new(EventQueue::new()?),
            hands: Mutex::default(),
        };
        // SAFETY: `out` is not NULL; see "Rules" in the header.
        unsafe { put(out, handle::try_give(WorkerValue(Arc::new(inner)))?) };
        Ok(GW_OK)
    })
}

/// Registers a task. Only before the start.
///
/// `task` is called for each of the task's jobs, on threads of the library, several at once. If `task` is NULL, the
/// caller pulls the jobs with `gw_worker_next`. All tasks of one worker must be of the same kind: called or pulled.
///
/// `free_fn(user_data)` is called once, as soon as the library no longer needs the function, also if this call fails.
/// GW_ERR_CONFIG if the task is already registered. GW_ERR_STATE if the worker was started or the kinds differ.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_add_task(
    worker: *mut gw_worker_t,
    name: *const c_char,
    task: gw_task_fn,
    user_data: *mut c_void,
    free_fn: gw_free_fn,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let user_data = UserData { pointer: user_data, free: free_fn };
        let worker = look(worker)?;
        // SAFETY: see "Rules" in the header.
        let name = unsafe { text::required("name", name) }?.to_owned();
        let function = task.map(|function| Arc::new(TaskFunction { function, user_data }));
        worker.0.change(|setup| {
            if setup.tasks.iter().any(|task| task.name == name) {
                return Err(Failure::config(format!("task {name:?}: is defined twice")));
            }
            if setup.tasks.iter().any(|other| other.function.is_some() != function.is_some()) {
                return state_error(
                    "the tasks of a worker are either all called or all pulled; make one worker of each",
                );
            }
            setup.tasks.push(TaskSetup { name, function, timeout: None, backoff: None });
            Ok(GW_OK)
        })
    })
}

/// Sets an option of a registered task. Only before the start.
///
/// - `timeout`: a duration such as `30s`. The library cancels a job that runs longer.
/// - `backoff`: how long a failed job waits for its next attempt: `fixed 10s`, `linear 10s 1h` or `exponential 10s 1h`.
///   The first duration is the first delay, the second one the longest.
///
/// GW_ERR_CONFIG for an unknown task, an unknown option or a value of another form. GW_ERR_STATE after the start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_set_task_option(
    worker: *mut gw_worker_t,
    task: *const c_char,
    key: *const c_char,
    value: *const c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let worker = look(worker)?;
        // SAFETY: see "Rules" in the header.
        let (name, key, value) =
            unsafe { (text::required("task", task)?, text::required("key", key)?, text::required("value", value)?) };
        worker.0.change(|setup| {
            let Some(task) = setup.tasks.iter_mut().find(|task| task.name == name) else {
                return Err(Failure::config(format!("task {name:?}: is not defined; add it before its options")));
            };
            match key {
                "timeout" => task.timeout = Some(keys::duration(key, value)?),
                "backoff" => task.backoff = Some(backoff(value)?),
                _ => {
                    return Err(Failure::config(format!(
                        "{key}: is not an option of a task; the options are timeout and backoff"
                    )));
                }
            }
            Ok(GW_OK)
        })
    })
}

fn backoff(value: &str) -> Result<RetryPolicy, Failure> {
    let time = |text| keys::duration("backoff", text);
    Ok(match value.split_whitespace().collect::<Vec<_>>()[..] {
        ["fixed", delay] => RetryPolicy::fixed(time(delay)?),
        ["linear", step, cap] => RetryPolicy::linear(time(step)?, time(cap)?),
        ["exponential", first, cap] => RetryPolicy::exponential(time(first)?, time(cap)?),
        _ => {
            let text =
                format!("backoff: {value:?} is none of \"fixed 10s\", \"linear 10s 1h\", \"exponential 10s 1h\"");
            return Err(Failure::config(text));
        }
    })
}

/// Makes the worker add jobs by the clock: `crontab` is lines of crontab text, as for `gw_crontab_parse`. May be called
/// repeatedly, only before the start. GW_ERR_CRONTAB names line and column.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_add_crontab(
    worker: *mut gw_worker_t,
    crontab: *const c_char,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let worker = look(worker)?;
        // SAFETY: see "Rules" in the header.
        let entries = cron::parse(unsafe { text::required("crontab", crontab) }?)?;
        worker.0.change(|setup| {
            setup.crons.extend(entries);
            Ok(GW_OK)
        })
    })
}

/// Registers a hook before the start.
pub(super) fn add_hook(
    worker: *mut gw_worker_t,
    hook: impl FnOnce(&Arc<EventQueue>) -> Hook,
) -> Result<gw_status_t, Failure> {
    let worker = look(worker)?;
    let hook = hook(&worker.0.events);
    worker.0.change(|setup| {
        setup.hooks.push(hook);
        Ok(GW_OK)
    })
}

/// The queue of events that wait to be pulled.
pub(super) fn events(worker: *const gw_worker_t) -> Result<Arc<EventQueue>, Failure> {
    Ok(look(worker)?.0.events.clone())
}

pub(super) fn look(worker: *const gw_worker_t) -> Result<Use<WorkerValue>, Failure> {
    handle::look(worker)
}

pub(super) fn state_error<T>(text: &str) -> Result<T, Failure> {
    Err(Failure::new(GW_ERR_STATE, text))
}

impl TaskSetup {
    /// The task as the library runs it. `home` is set before the first job.
    pub(super) fn definition(&self, home: &Arc<OnceLock<Arc<Home>>>) -> JobDefinition {
        let runner = match &self.function {
            None => Runner::Pull,
            Some(function) => {
                let (function, home) = (function.clone(), home.clone());
                Runner::Give(Box::new(move |started| {
                    function.run(started, home.get().expect("`home` is set before the first job"));
                }))
            }
        };
        let mut definition = JobDefinition::run_by(&self.name, runner);
        if let Some(timeout) = self.timeout {
            definition = definition.timeout(timeout);
        }
        if let Some(policy) = &self.backoff {
            definition = definition.backoff(policy.clone());
        }
        definition
    }
}

impl Inner {
    /// Changes the setup of a worker that was never started.
    fn change(&self, work: impl FnOnce(&mut Setup) -> Result<gw_status_t, Failure>) -> Result<gw_status_t, Failure> {
        let too_late = || state_error("the worker has already been started; call this before the start");
        if self.starting.load(Ordering::Acquire) {
            return too_late();
        }
        let mut setup = self.setup.lock();
        match self.state.load(Ordering::Acquire) {
            GW_STATE_NEW => work(&mut setup),
            _ => too_late(),
        }
    }
}
