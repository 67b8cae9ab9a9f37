//! Workers: their tasks, their start and stop, and pulling jobs from them.

use super::boundary::{put, read, wanted};
use super::call::{call, status_of};
use super::client::{ClientValue, gw_client_t};
use super::config::{ConfigValue, gw_config_t};
use super::error::gw_error_t;
use super::events::{EventQueue, Hook, Hooks};
use super::failure::Failure;
use super::handle::{self, KindSlab, Use, Value};
use super::inside::{is_inside, not_inside};
use super::job::{self, Home, Life, gw_job_t};
use super::keys::{self, Reader, Values};
use super::status::{
    GW_CANCELLED, GW_ERR_HANDLE, GW_ERR_NOMEM, GW_ERR_STATE, GW_OK, GW_STOPPED, GW_TIMEOUT, GW_WOKEN, gw_status_t,
};
use super::task::{TaskFunction, gw_task_fn};
use super::user_data::{UserData, gw_free_fn};
use super::wakeup::{Wakeup, deadline};
use super::{cron, json, text};
use crate::engine::pull::{JobSource, Next};
use crate::lock::held;
use crate::tasks::Runner;
use crate::{Cron, JobDefinition, RetryPolicy, Worker, WorkerStats, db::deadline::HELPER_BEGINS};
use log::warn;
use parking_lot::{Mutex, RwLock};
use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{ptr, thread};

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

pub(super) struct WorkerValue(Arc<Inner>);

impl Value for WorkerValue {
    const KIND: u64 = 7;
    const NAME: &'static str = "worker";

    fn slab() -> &'static KindSlab<Self> {
        static SLAB: KindSlab<WorkerValue> = KindSlab::new();
        &SLAB
    }
}

struct Inner {
    values: Values,
    setup: Mutex<Setup>,
    state: AtomicI32,
    /// Readable while there may be a job to pull.
    wakeup: Arc<Wakeup>,
    /// A start is in progress. Functions that it calls must not wait for it.
    starting: AtomicBool,
    /// Wakes gw-control. A signal handler may notify it.
    control: Wakeup,
    /// One of GW_STOP_..., or 0 for no stop.
    stop: AtomicI32,
    woken: AtomicBool,
    /// Read recursively, because callbacks run while a thread holds the read lock.
    current: RwLock<Option<Current>>,
    /// A standard lock, because callers wait on it for long: see `lock.rs`.
    end: std::sync::Mutex<End>,
    ended: std::sync::Condvar,
    events: Arc<EventQueue>,
    /// The threads gw-worker and gw-control.
    hands: Mutex<Vec<JoinHandle<()>>>,
}

/// The result of the last start; `None` while the worker runs.
type End = Option<Result<(), (gw_status_t, String)>>;

/// The settings that the caller makes before the start.
#[derive(Default)]
struct Setup {
    tasks: Vec<TaskSetup>,
    crons: Vec<Cron>,
    hooks: Vec<Hook>,
    /// The worker was freed: no further start is allowed.
    freed: bool,
}

struct TaskSetup {
    name: String,
    /// `None` if the task's jobs are pulled.
    function: Option<Arc<TaskFunction>>,
    timeout: Option<Duration>,
    backoff: Option<RetryPolicy>,
}

/// The running start, or the last one.
struct Current {
    worker: Arc<Worker>,
    source: JobSource,
    home: Arc<Home>,
}

impl Drop for Current {
    fn drop(&mut self) {
        let client: *const gw_client_t = ptr::without_provenance(self.home.client);
        let _ = handle::free::<ClientValue, _>(client);
    }
}

fn look(worker: *const gw_worker_t) -> Result<Use<WorkerValue>, Failure> {
    handle::look(worker)
}

fn state_error<T>(text: &str) -> Result<T, Failure> {
    Err(Failure::new(GW_ERR_STATE, text))
}

/// Installs the logger, and makes the library's helper threads begin with all signals blocked. May be called
/// repeatedly.
pub(super) fn prepare() {
    super::log::install();
    let _ = HELPER_BEGINS.set(block_signals);
}

fn block_signals() {
    std::mem::forget(SignalsBlocked::now());
}

/// While it lives, all signals are blocked on this thread. Threads that this thread starts meanwhile keep them blocked.
pub(super) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(super) fn now() -> Self {
        // SAFETY: both sets live on this stack; a signal set is plain bits.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self(before)
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `self.0` is the signal set that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
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

/// For `events.rs`: registers a hook before the start.
pub(super) fn add_hook(
    worker: *mut gw_worker_t,
    hook: impl FnOnce(&Arc<EventQueue>) -> Result<Hook, Failure>,
) -> Result<gw_status_t, Failure> {
    let worker = look(worker)?;
    let hook = hook(&worker.0.events)?;
    worker.0.change(|setup| {
        setup.hooks.push(hook);
        Ok(GW_OK)
    })
}

/// For `events.rs`: the queue of events that wait to be pulled.
pub(super) fn events(worker: *const gw_worker_t) -> Result<Arc<EventQueue>, Failure> {
    Ok(look(worker)?.0.events.clone())
}

/// Marks a start as in progress until it is dropped.
struct Start<'a>(&'a AtomicBool);

impl Drop for Start<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Inner {
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

    fn runs(&self) -> bool {
        matches!(self.state.load(Ordering::Acquire), GW_STATE_RUNNING | GW_STATE_STOPPING)
    }

    /// Waits for the threads gw-worker and gw-control of a start that has ended.
    fn join(&self) {
        for hand in std::mem::take(&mut *self.hands.lock()) {
            let _ = hand.join();
        }
    }

    /// Starts the worker. Refuses a second start while one is in progress.
    fn start(self: &Arc<Self>, until_empty: bool) -> Result<(), Failure> {
        if self.starting.swap(true, Ordering::AcqRel) {
            return state_error("another start of this worker is in progress");
        }
        let _start = Start(&self.starting);
        self.begin(until_empty)
    }

    /// Checks the setup, connects, and starts all threads.
    fn begin(self: &Arc<Self>, until_empty: bool) -> Result<(), Failure> {
        let setup = self.setup.lock();
        if self.runs() {
            return state_error("the worker is already running");
        }
        if setup.freed {
            return Err(Failure::new(GW_ERR_HANDLE, "this worker was freed"));
        }
        // The threads of the last start are ending. They read shared state, and must not act on this start.
        self.join();
        let _blocked = SignalsBlocked::now();
        let pulled = setup.tasks.first().is_some_and(|task| task.function.is_none());
        // Set when the worker runs, before its first job.
        let home: Arc<OnceLock<Arc<Home>>> = Arc::default();
        let mut options = Reader(&self.values).options(pulled.then(|| self.wakeup.clone()))?;
        options = options.with_crons(setup.crons.iter().cloned()).add_plugin(Hooks(setup.hooks.clone()));
        options = options.define_jobs(setup.tasks.iter().map(|task| task.definition(&home)));
        let worker = Arc::new(options.init()?);

        let (started, wait) = crossbeam_channel::bounded(1);
        *self.end() = None;
        self.events.open();
        let (inner, running) = (self.clone(), worker.clone());
        let life = move || inner.live(&running, until_empty, &home, started);
        let hand = thread::Builder::new().name("gw-worker".into()).spawn(life).map_err(no_thread)?;
        self.hands.lock().push(hand);
        if wait.recv().is_err() {
            // The start failed; gw-worker has stored the reason.
            let end = self.end().take();
            let (status, message) =
                end.and_then(Result::err).unwrap_or((GW_ERR_NOMEM, "the worker did not start".into()));
            self.state.store(GW_STATE_NEW, Ordering::Release);
            return Err(Failure::new(status, message));
        }
        let inner = self.clone();
        match thread::Builder::new().name("gw-control".into()).spawn(move || inner.obey(&worker)) {
            Ok(hand) => {
                self.hands.lock().push(hand);
                Ok(())
            }
            Err(error) => {
                self.current.read_recursive().as_ref().inspect(|current| current.worker.abort());
                Err(no_thread(error))
            }
        }
    }

    /// gw-worker: runs one start of the worker until it ends.
    fn live(
        &self,
        worker: &Arc<Worker>,
        until_empty: bool,
        home: &OnceLock<Arc<Home>>,
        started: crossbeam_channel::Sender<()>,
    ) {
        let begins = |source: &JobSource| {
            let client = ClientValue { utils: worker.create_utils(), borrowed: true };
            let home = home.get_or_init(|| {
                Arc::new(Home {
                    worker_id: text::owned(source.shared.worker_id.as_str()),
                    client: handle::give::<_, gw_client_t>(client).addr(),
                    over: AtomicBool::new(false),
                })
            });
            *self.current.write() =
                Some(Current { worker: worker.clone(), source: source.clone(), home: home.clone() });
        };
        let result = worker.live(until_empty, begins, || {
            self.state.store(GW_STATE_RUNNING, Ordering::Release);
            let _ = started.send(());
        });
        self.current.read_recursive().as_ref().inspect(|current| current.home.over.store(true, Ordering::Release));
        self.stop.store(0, Ordering::Release);
        let state = if result.is_ok() { GW_STATE_STOPPED } else { GW_STATE_FAILED };
        let result = result.map_err(|error| {
            let failure = Failure::from(error);
            (failure.status, failure.message)
        });
        let mut end = self.end();
        *end = Some(result);
        // Stored before any waiting thread is notified of the end.
        self.state.store(state, Ordering::Release);
        drop(end);
        self.ended.notify_all();
        self.wakeup.notify();
        self.control.notify();
        self.events.close();
        // Dropped last: if the start failed, the waiting caller then reads the result stored above.
        drop(started);
    }

    /// gw-control: carries out the stops that a signal handler may only request.
    fn obey(&self, worker: &Worker) {
        while self.runs() {
            match self.stop.load(Ordering::Acquire) {
                GW_STOP_GRACEFUL => worker.request_shutdown(),
                GW_STOP_ABORT => worker.abort(),
                _ => {}
            }
            self.control.wait(None);
            self.control.drain();
        }
    }

    fn end(&self) -> MutexGuard<'_, End> {
        held(self.end.lock())
    }

    /// Waits for the end of the running start.
    fn wait(&self, until: Option<Instant>) -> Result<gw_status_t, Failure> {
        let mut end = self.end();
        loop {
            match &*end {
                Some(Ok(())) => return Ok(GW_OK),
                Some(Err((status, message))) => return Err(Failure::new(*status, message.clone())),
                None if !self.runs() => return state_error("the worker was not started"),
                None => {}
            }
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            end = match left {
                None => held(self.ended.wait(end)),
                Some(Duration::ZERO) => return Ok(GW_TIMEOUT),
                Some(left) => held(self.ended.wait_timeout(end, left)).0,
            };
        }
    }

    /// Calls `find` until it finds something or the timeout is over.
    fn pull<T>(
        &self,
        timeout_ms: i64,
        mut find: impl FnMut(&Current) -> Result<Found<T>, Failure>,
    ) -> Result<Found<T>, Failure> {
        if timeout_ms != 0 {
            not_inside("wait for a job")?;
        }
        let look = || match self.look(&mut find) {
            Ok(Found::Status(GW_TIMEOUT)) => None,
            found => Some(found),
        };
        let found = self.wakeup.wait_for(deadline(timeout_ms), look).unwrap_or(Ok(Found::Status(GW_TIMEOUT)));
        if matches!(found, Ok(Found::Status(GW_STOPPED))) {
            // Every later call returns the same, so the descriptor stays readable.
            self.wakeup.notify();
        }
        found
    }

    /// Looks once, without waiting.
    fn look<T>(&self, find: &mut impl FnMut(&Current) -> Result<Found<T>, Failure>) -> Result<Found<T>, Failure> {
        if self.woken.swap(false, Ordering::AcqRel) {
            return Ok(Found::Status(GW_WOKEN));
        }
        match &*self.current.read_recursive() {
            None => state_error("the worker was not started"),
            Some(current) if current.source.shared.config.pull.is_none() => {
                state_error("the tasks of this worker are called; add them with NULL to pull their jobs")
            }
            Some(current) if current.home.over.load(Ordering::Acquire) => Ok(Found::Status(GW_STOPPED)),
            Some(current) => find(current),
        }
    }
}

/// The result of a pull.
enum Found<T> {
    Something(gw_status_t, T),
    Status(gw_status_t),
}

impl TaskSetup {
    fn definition(&self, home: &Arc<OnceLock<Arc<Home>>>) -> JobDefinition {
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

fn no_thread(error: std::io::Error) -> Failure {
    Failure::new(GW_ERR_NOMEM, format!("cannot start a thread: {error}"))
}

/// Checks the options, connects, installs the schema or updates the existing one, starts all threads, and returns.
///
/// `mode`: GW_RUN_FOREVER, until a stop; GW_RUN_ONCE, until no job is due. If the start fails, nothing runs:
/// GW_ERR_CONFIG, GW_ERR_CONNECT, GW_ERR_AUTH, GW_ERR_SCHEMA and others. GW_ERR_STATE if the worker runs or another
/// start is in progress. A worker that has ended can be started again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_start(
    worker: *mut gw_worker_t,
    mode: i32,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let worker = look(worker)?;
        match mode {
            GW_RUN_FOREVER => worker.0.start(false)?,
            GW_RUN_ONCE => worker.0.start(true)?,
            other => return Err(Failure::invalid(format!("mode: {other} is none of GW_RUN_..."))),
        }
        Ok(GW_OK)
    })
}

/// Calls `gw_worker_start` with GW_RUN_FOREVER, then `gw_worker_wait` without a timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_run(worker: *mut gw_worker_t, err: *mut *mut gw_error_t) -> gw_status_t {
    start_and_wait(worker, false, err)
}

/// Calls `gw_worker_start` with GW_RUN_ONCE, then `gw_worker_wait` without a timeout. If the tasks are pulled, other
/// threads must pull the jobs. Such a run adds no jobs of the crontab, not even those that `fill` would make up for. It
/// recovers no jobs of dead workers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_run_once(worker: *mut gw_worker_t, err: *mut *mut gw_error_t) -> gw_status_t {
    start_and_wait(worker, true, err)
}

fn start_and_wait(worker: *mut gw_worker_t, until_empty: bool, err: *mut *mut gw_error_t) -> gw_status_t {
    call(err, || {
        let inner = look(worker)?.0.clone();
        not_inside("run a worker")?;
        inner.start(until_empty)?;
        inner.wait(None)
    })
}

/// Requests a stop, and returns at once. ASYNC-SIGNAL-SAFE.
///
/// `mode`: GW_STOP_GRACEFUL or GW_STOP_ABORT; every other number counts as GW_STOP_GRACEFUL. An abort may follow a
/// graceful stop. If the worker is not running, the next start stops as soon as the worker runs. A bad handle does
/// nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_request_stop(worker: *mut gw_worker_t, mode: i32) {
    // Async-signal-safe: no lock, no allocation, no panic. It counts a use, stores a number and writes a byte.
    let Ok(worker) = look(worker) else { return };
    let mode = if mode == GW_STOP_ABORT { GW_STOP_ABORT } else { GW_STOP_GRACEFUL };
    let ran = worker.0.runs();
    worker.0.stop.fetch_max(mode, Ordering::AcqRel);
    let _ = worker.0.state.compare_exchange(GW_STATE_RUNNING, GW_STATE_STOPPING, Ordering::AcqRel, Ordering::Acquire);
    if ran && !worker.0.runs() {
        // The worker has ended meanwhile. The request must not stop the next start.
        let _ = worker.0.stop.compare_exchange(mode, 0, Ordering::AcqRel, Ordering::Acquire);
    }
    worker.0.control.notify();
}

/// Waits until the worker has ended: GW_OK, or GW_TIMEOUT after `timeout_ms`. Later calls return the same result until
/// the next start.
///
/// GW_ERR_STUCK, naming job, task and thread, if handlers did not return in time; their jobs were given back.
/// GW_ERR_STUCK, naming job, task and outcome, if outcomes could not be written; these jobs may run again. GW_ERR_STATE
/// if the worker was not started. After a stop, a worker ends within `shutdown_grace_period` and one second.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_wait(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let inner = look(worker)?.0.clone();
        if timeout_ms != 0 {
            not_inside("wait for a worker")?;
        }
        inner.wait(deadline(timeout_ms))
    })
}

/// Waits until the database has every outcome that was reported before the call: GW_OK, or GW_TIMEOUT after
/// `timeout_ms`. Returns GW_OK if the worker was never started.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_flush(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        let inner = look(worker)?.0.clone();
        if timeout_ms != 0 {
            not_inside("wait for outcomes")?;
        }
        let until = deadline(timeout_ms);
        let Some(worker) = inner.current.read_recursive().as_ref().map(|current| current.worker.clone()) else {
            return Ok(GW_OK);
        };
        while !worker.is_settled() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(GW_TIMEOUT);
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(GW_OK)
    })
}

/// Frees a worker. If it runs, the call aborts it and waits until its stop is over. NULL does nothing.
///
/// Handles of its jobs stay valid and must still be freed. When this call returns, every `user_data` of the worker has
/// been freed, unless one of its functions still runs or a handle of one of its jobs is left. Within a function that
/// the library calls, a running worker is only stopped, and nothing is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_free(worker: *mut gw_worker_t) {
    read((), || {
        let inner = look(worker)?.0.clone();
        if inner.runs() || inner.starting.load(Ordering::Acquire) {
            // SAFETY: the function accepts any pointer.
            unsafe { gw_worker_request_stop(worker, GW_STOP_ABORT) };
            if is_inside() {
                warn!("a callback freed its own worker: the worker stops, and its handle stays valid");
                return Ok(());
            }
        }
        // The lock waits for a start that is in progress; the mark prevents any other.
        inner.setup.lock().freed = true;
        if inner.runs() {
            // SAFETY: the same.
            unsafe { gw_worker_request_stop(worker, GW_STOP_ABORT) };
            let _ = inner.wait(None);
        }
        handle::free::<WorkerValue, _>(worker)?;
        // Wakes up threads that wait for events of a worker that never ran.
        inner.events.close();
        // Waits for gw-worker and gw-control, so that each `user_data` is freed before this call returns.
        inner.join();
        Ok(())
    });
}

/// Returns one of GW_STATE_..., or -1 on a bad handle. Never waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_state(worker: *const gw_worker_t) -> i32 {
    look(worker).map_or(-1, |worker| worker.0.state.load(Ordering::Acquire))
}

/// The id under which the worker locks jobs. Each start has a new one. NULL before the first start. Valid until the
/// next start or `gw_worker_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_id(worker: *const gw_worker_t) -> *const c_char {
    read(ptr::null(), || {
        let worker = look(worker)?;
        Ok(worker.0.current.read_recursive().as_ref().map_or(ptr::null(), |current| current.home.worker_id.as_ptr()))
    })
}

/// The worker's client, borrowed: `gw_client_free` does nothing to it. NULL before the first start. Valid until the
/// next start or `gw_worker_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_client(worker: *mut gw_worker_t) -> *mut gw_client_t {
    read(ptr::null_mut(), || {
        let worker = look(worker)?;
        let client = worker.0.current.read_recursive().as_ref().map_or(0, |current| current.home.client);
        Ok(ptr::without_provenance_mut(client))
    })
}

/// Pulls the next job, already started, and writes it to `job`. The caller ends it with `gw_job_complete` or
/// `gw_job_fail`, and frees it with `gw_job_free`. Several threads may call this at once. At most `concurrency` jobs
/// without an outcome are handed out at once.
///
/// - GW_OK: `job` has a job.
/// - GW_TIMEOUT: no job was available within `timeout_ms`.
/// - GW_WOKEN: `gw_worker_wakeup` was called.
/// - GW_STOPPED: the worker hands out no more jobs. Every call returns this until the next start.
/// - GW_CANCELLED, only with the option `deliver_cancellations`: `job` has a further handle of a job that was handed
///   out earlier and should end early. The caller frees it; it cannot end the job.
/// - GW_ERR_STATE: the worker was not started, or its tasks are called.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_next(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    job: *mut *mut gw_job_t,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("job", job)?;
        let inner = look(worker)?.0.clone();
        let found = inner.pull(timeout_ms, |current| {
            let (status, life) = match current.source.next() {
                Next::Job(started) => (GW_OK, Life::of_started(started, current.home.clone())),
                Next::Cancelled(context) => (GW_CANCELLED, Life::of_context(context, current.home.clone())),
                Next::Nothing => return Ok(Found::Status(GW_TIMEOUT)),
                Next::Over => return Ok(Found::Status(GW_STOPPED)),
            };
            Ok(Found::Something(status, job::give(life)?))
        })?;
        match found {
            Found::Status(status) => Ok(status),
            Found::Something(status, found) => {
                // SAFETY: `job` is not NULL; see "Rules" in the header.
                unsafe { put(job, found) };
                Ok(status)
            }
        }
    })
}

/// Pulls up to `capacity` jobs at once. Waits for the first one only. `capacity` is 1 to GW_LIST_MAX, and `jobs` has
/// room for as many handles. The number of handles is written to `count`. Otherwise as `gw_worker_next`.
///
/// Does not deliver cancelled jobs: if one waits and no job is available, it returns GW_WOKEN, and `gw_worker_next`
/// delivers it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_next_batch(
    worker: *mut gw_worker_t,
    timeout_ms: i64,
    jobs: *mut *mut gw_job_t,
    capacity: usize,
    count: *mut usize,
    err: *mut *mut gw_error_t,
) -> gw_status_t {
    call(err, || {
        wanted("jobs", jobs)?;
        wanted("count", count)?;
        if capacity == 0 {
            return Err(Failure::invalid("capacity: is 0"));
        }
        text::entries("capacity", capacity)?;
        let inner = look(worker)?.0.clone();
        let found = inner.pull(timeout_ms, |current| {
            let mut came = 0;
            while came < capacity {
                match current.source.next_job() {
                    Next::Job(started) => match job::give(Life::of_started(started, current.home.clone())) {
                        Ok(given) => {
                            // SAFETY: the caller promises room for `capacity` jobs.
                            unsafe { *jobs.add(came) = given };
                            came += 1;
                        }
                        Err(failure) if came == 0 => return Err(failure),
                        // The caller gets the jobs before the failure.
                        Err(_) => break,
                    },
                    Next::Over if came == 0 => return Ok(Found::Status(GW_STOPPED)),
                    Next::Over | Next::Nothing | Next::Cancelled(_) => break,
                }
            }
            Ok(match came {
                // A notice is left for `gw_worker_next`. This pull drained the descriptor, so it must report it.
                0 if current.source.has_notices() => Found::Status(GW_WOKEN),
                0 => Found::Status(GW_TIMEOUT),
                _ => Found::Something(GW_OK, came),
            })
        })?;
        match found {
            Found::Status(status) => Ok(status),
            Found::Something(status, came) => {
                // SAFETY: `count` is not NULL; see "Rules" in the header.
                unsafe { put(count, came) };
                Ok(status)
            }
        }
    })
}

/// A file descriptor to poll for reading. It is readable while `gw_worker_next` with a timeout of 0 would return
/// anything but GW_TIMEOUT. It may also be readable once when there is nothing.
///
/// The library owns it: do not read or close it. An edge-triggered poller calls `gw_worker_next` after each wakeup
/// until GW_TIMEOUT. The descriptor stays the same from `gw_worker_new` to `gw_worker_free`. -1 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_fd(worker: *const gw_worker_t) -> i32 {
    look(worker).map_or(-1, |worker| worker.0.wakeup.fd())
}

/// Makes one waiting or later `gw_worker_next` return GW_WOKEN. ASYNC-SIGNAL-SAFE. A bad handle does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_wakeup(worker: *mut gw_worker_t) {
    let Ok(worker) = look(worker) else { return };
    worker.0.woken.store(true, Ordering::Release);
    worker.0.wakeup.notify();
}

/// Counters of a worker since its last start, and its current load. Set `struct_size` before the call. New fields are
/// only added at the end.
#[repr(C)]
pub struct gw_stats_t {
    /// The size of this struct in bytes, as the caller was compiled: `sizeof(gw_stats_t)`.
    pub struct_size: usize,
    /// Jobs claimed.
    pub claimed: u64,
    /// Jobs that succeeded and were deleted.
    pub completed: u64,
    /// Attempts that failed, the last ones included.
    pub failed: u64,
    /// Attempts that failed and are retried.
    pub retried: u64,
    /// Jobs that failed permanently.
    pub permanently_failed: u64,
    /// Jobs given back before they started, or interrupted by a stop.
    pub returned: u64,
    /// Jobs whose handler asked to run again later, without using an attempt.
    pub snoozed: u64,
    /// Jobs that were cancelled because they ran longer than their task's timeout.
    pub timed_out: u64,
    /// Jobs that went on for longer than the grace period after their timeout.
    pub stuck: u64,
    /// Outcomes that the database refused because the worker no longer held the job.
    pub lost: u64,
    /// Jobs that the database held for the worker without the worker's knowledge, given back.
    pub reconciled: u64,
    /// Database calls that failed and were retried.
    pub database_errors: u64,
    /// Jobs claimed and waiting for a thread, now.
    pub held: u64,
    /// Jobs running, now.
    pub running: u64,
    /// Jobs claimed and not settled, now: held, running, or waiting to be settled.
    pub in_flight: u64,
    /// How long the oldest outcome has been waiting to be written, now, in microseconds; 0 if none waits.
    pub settle_lag_us: u64,
    /// Events that were dropped because the observers could not keep up.
    pub events_dropped: u64,
}

fn statistics(worker: *const gw_worker_t) -> Result<WorkerStats, Failure> {
    let worker = look(worker)?.0.current.read_recursive().as_ref().map(|current| current.worker.clone());
    Ok(worker.map(|worker| worker.stats()).unwrap_or_default())
}

/// Writes the worker's statistics to `stats`; all 0 before the first start. The caller sets `stats->struct_size`, and
/// only the fields within that size are written. GW_ERR_INVALID if it is not set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_stats(worker: *const gw_worker_t, stats: *mut gw_stats_t) -> gw_status_t {
    status_of(|| {
        wanted("stats", stats)?;
        let read = statistics(worker)?;
        // SAFETY: `stats` is not NULL, and the caller promises that `struct_size` is set.
        let struct_size = unsafe { (*stats).struct_size };
        if struct_size < size_of::<usize>() {
            return Err(Failure::invalid("stats->struct_size: is not set"));
        }
        let full = gw_stats_t {
            struct_size,
            claimed: read.claimed,
            completed: read.completed,
            failed: read.failed,
            retried: read.retried,
            permanently_failed: read.permanently_failed,
            returned: read.returned,
            snoozed: read.snoozed,
            timed_out: read.timed_out,
            stuck: read.stuck,
            lost: read.lost,
            reconciled: read.reconciled,
            database_errors: read.database_errors,
            held: read.held,
            running: read.running,
            in_flight: read.in_flight,
            settle_lag_us: read.settle_lag.as_micros() as u64,
            events_dropped: read.events_dropped,
        };
        let known = struct_size.min(size_of::<gw_stats_t>());
        // SAFETY: the caller's struct and `full` have at least `known` bytes.
        unsafe { ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), stats.cast::<u8>(), known) };
        Ok(())
    })
}

/// All statistics as a JSON object: also the open sessions, and the sizes and times of claims, statements and handlers.
/// The caller frees it with `gw_string_free`. NULL on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_stats_json(worker: *const gw_worker_t) -> *mut c_char {
    read(ptr::null_mut(), || Ok(text::give(json::stats(&statistics(worker)?).to_string())))
}
