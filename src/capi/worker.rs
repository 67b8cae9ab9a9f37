//! Workers: their tasks, their life, and the jobs that are pulled from them.

use super::client::{ClientValue, gw_client_t};
use super::config::{ConfigValue, gw_config_t};
use super::events::{EventQueue, Hook, Hooks};
use super::handle::{self, Slab, Slabs, Use, Value};
use super::job::{self, Home, Life, gw_job_t};
use super::keys::{self, Reader, Values};
use super::status::{
    Failure, GW_CANCELLED, GW_ERR_DEADLOCK, GW_ERR_HANDLE, GW_ERR_NOMEM, GW_ERR_STATE, GW_OK, GW_STOPPED, GW_TIMEOUT,
    GW_WOKEN, gw_error_t, gw_status_t,
};
use super::task::{TaskFunction, gw_task_fn};
use super::user_data::{UserData, gw_free_fn};
use super::wakeup::{Wakeup, deadline};
use super::{call, cron, is_inside, json, put, read, text, wanted};
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

/// Stop: nothing more is claimed, running jobs have the grace period.
pub const GW_STOP_GRACEFUL: i32 = 1;
/// Stop: the same, and running jobs are cancelled at once.
pub const GW_STOP_ABORT: i32 = 2;

/// Run: until a stop.
pub const GW_RUN_FOREVER: i32 = 1;
/// Run: until no job is due.
pub const GW_RUN_ONCE: i32 = 2;

/// State: not started yet.
pub const GW_STATE_NEW: i32 = 0;
/// State: it runs.
pub const GW_STATE_RUNNING: i32 = 1;
/// State: it was asked to stop, and has not ended.
pub const GW_STATE_STOPPING: i32 = 2;
/// State: it has ended.
pub const GW_STATE_STOPPED: i32 = 3;
/// State: it has ended with an error, which `gw_worker_wait` tells.
pub const GW_STATE_FAILED: i32 = 4;

/// A worker. Thread-safe; freed with `gw_worker_free`.
pub struct gw_worker_t;

pub(super) struct WorkerValue(Arc<Inner>);

impl Value for WorkerValue {
    const KIND: u64 = 7;
    const NAME: &'static str = "worker";

    fn slab(slabs: &Slabs) -> &Slab<Self> {
        &slabs.workers
    }
}

struct Inner {
    values: Values,
    setup: Mutex<Setup>,
    state: AtomicI32,
    /// Readable while there may be something to pull.
    wakeup: Arc<Wakeup>,
    /// A start is under way. What it calls must not wait for it.
    starting: AtomicBool,
    /// Wakes gw-control. A signal handler may ring it.
    control: Wakeup,
    /// GW_STOP_..., or 0.
    stop: AtomicI32,
    woken: AtomicBool,
    /// Read recursively: functions of the host's are called while it is.
    current: RwLock<Option<Current>>,
    /// Hosts wait here for long: see `lock.rs`.
    end: std::sync::Mutex<End>,
    ended: std::sync::Condvar,
    events: Arc<EventQueue>,
    /// gw-worker and gw-control.
    hands: Mutex<Vec<JoinHandle<()>>>,
}

/// What is told before the start.
/// How the last start ended; `None` while it runs.
type End = Option<Result<(), (gw_status_t, String)>>;

#[derive(Default)]
struct Setup {
    tasks: Vec<TaskSetup>,
    crons: Vec<Cron>,
    hooks: Vec<Hook>,
    /// There will be no other start.
    freed: bool,
}

struct TaskSetup {
    name: String,
    /// `None` where jobs are pulled.
    function: Option<Arc<TaskFunction>>,
    timeout: Option<Duration>,
    backoff: Option<RetryPolicy>,
}

/// The start that runs now, or ran last.
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

/// What every thread of ours begins with, and what every process needs once.
pub(super) fn prepare() {
    super::log::install();
    let _ = HELPER_BEGINS.set(block_signals);
}

fn block_signals() {
    std::mem::forget(SignalsBlocked::now());
}

/// While it lives no signal is delivered to this thread; threads that it starts inherit that, for good.
pub(super) struct SignalsBlocked(libc::sigset_t);

impl SignalsBlocked {
    pub(super) fn now() -> Self {
        // SAFETY: both sets live on our stack; a signal set is plain bits.
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
        // SAFETY: it is the set that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

/// A worker with this configuration, without any task. No network yet. The caller frees it.
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
        // What can be found out without the database is found out now.
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
        // SAFETY: it is not NULL; see "Rules" in the header.
        unsafe { put(out, handle::try_give(WorkerValue(Arc::new(inner)))?) };
        Ok(GW_OK)
    })
}

/// Registers a task: `task` is called for each of its jobs, or NULL: they are pulled with `gw_worker_next`. A worker's
/// tasks are either all called or all pulled. Before the start only.
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

/// Sets an option of a task. `timeout`: how long one of its jobs may take before it is cancelled, as `30s`. `backoff`: how
/// long a failed job waits: `fixed 10s`, `linear 10s 1h`, `exponential 10s 1h` (first, and most). Before the start only.
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
                        "{key}: is no option of a task; there are timeout and backoff"
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

/// Adds jobs by the clock: lines of crontab text. GW_ERR_CRONTAB names line and column. Before the start only.
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

/// For `events.rs`: registers a hook, before the start.
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

/// For `events.rs`: the events that wait to be pulled.
pub(super) fn events(worker: *const gw_worker_t) -> Result<Arc<EventQueue>, Failure> {
    Ok(look(worker)?.0.events.clone())
}

/// A start that is under way, until it is dropped.
struct Start<'a>(&'a AtomicBool);

impl Drop for Start<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Inner {
    fn change(&self, work: impl FnOnce(&mut Setup) -> Result<gw_status_t, Failure>) -> Result<gw_status_t, Failure> {
        let too_late = || state_error("the worker was started already; tell it this before");
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

    /// Waits for gw-worker and gw-control of a start that has ended.
    fn join(&self) {
        for hand in std::mem::take(&mut *self.hands.lock()) {
            let _ = hand.join();
        }
    }

    /// Starts it, once at a time.
    fn start(self: &Arc<Self>, until_empty: bool) -> Result<(), Failure> {
        if self.starting.swap(true, Ordering::AcqRel) {
            return state_error("the worker is being started already");
        }
        let _start = Start(&self.starting);
        self.begin(until_empty)
    }

    /// Checks, connects, and starts all threads.
    fn begin(self: &Arc<Self>, until_empty: bool) -> Result<(), Failure> {
        let setup = self.setup.lock();
        if self.runs() {
            return state_error("the worker runs already");
        }
        if setup.freed {
            return Err(Failure::new(GW_ERR_HANDLE, "this worker was freed"));
        }
        // Those of the last start are on their way out, and must not take this one for theirs.
        self.join();
        let _blocked = SignalsBlocked::now();
        let pulled = setup.tasks.first().is_some_and(|task| task.function.is_none());
        // Known when the worker runs, and told before its first job.
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
            // It has ended before it began, and said why.
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

    /// gw-worker: one start of the worker, to its end.
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
        // Before anybody can hear of the end.
        self.state.store(state, Ordering::Release);
        drop(end);
        self.ended.notify_all();
        self.wakeup.notify();
        self.control.notify();
        self.events.close();
        // Last: whoever waits for the start in vain reads the reason above.
        drop(started);
    }

    /// gw-control: does what a signal handler may only ask for.
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

    /// Waits for the end of the start that runs.
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

    /// Gives what `find` finds, as soon as it does.
    fn pull<T>(
        &self,
        timeout_ms: i64,
        mut find: impl FnMut(&Current) -> Result<Found<T>, Failure>,
    ) -> Result<Found<T>, Failure> {
        if timeout_ms != 0 {
            not_inside("wait for a job")?;
        }
        let until = deadline(timeout_ms);
        let mut looked_twice = false;
        loop {
            match self.look(&mut find) {
                Ok(Found::Status(GW_TIMEOUT)) if !looked_twice => {
                    // What comes after this look rings again.
                    self.wakeup.drain();
                    looked_twice = true;
                }
                Ok(Found::Status(GW_TIMEOUT)) => {
                    if timeout_ms == 0 || !self.wakeup.wait(until) {
                        return Ok(Found::Status(GW_TIMEOUT));
                    }
                    looked_twice = false;
                }
                found => {
                    // There may be more, and it is silent.
                    if looked_twice || matches!(found, Ok(Found::Status(GW_STOPPED))) {
                        self.wakeup.notify();
                    }
                    return found;
                }
            }
        }
    }

    /// One look at what there is.
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

/// What somebody who came for jobs is answered.
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
                    function.run(started, home.get().expect("the start is told of before its first job"));
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

/// Whoever waits on a thread that the worker needs would wait for ever.
fn not_inside(doing: &str) -> Result<(), Failure> {
    match is_inside() {
        true => Err(Failure::new(GW_ERR_DEADLOCK, format!("a function that the library calls must not {doing}"))),
        false => Ok(()),
    }
}

/// Checks, connects, installs or takes over the schema, starts all threads, and returns. `mode`: GW_RUN_FOREVER, until a
/// stop, or GW_RUN_ONCE, until no job is due. Errors as they are found: GW_ERR_CONFIG, GW_ERR_CONNECT, GW_ERR_AUTH,
/// GW_ERR_SCHEMA and others; nothing runs then. A worker that has ended can be started again.
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

/// `gw_worker_start` with GW_RUN_FOREVER, and `gw_worker_wait` for ever.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_run(worker: *mut gw_worker_t, err: *mut *mut gw_error_t) -> gw_status_t {
    start_and_wait(worker, false, err)
}

/// `gw_worker_start` with GW_RUN_ONCE, and `gw_worker_wait` for ever. Where jobs are pulled, other threads must do so.
/// Such a run adds no jobs of the crontab, those that `fill` would make up for included, and recovers no jobs of dead workers.
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

/// Asks the worker to stop, and returns at once. ASYNC-SIGNAL-SAFE. `mode`: GW_STOP_GRACEFUL, or GW_STOP_ABORT, also after
/// it. Before the start: it will stop as soon as it was started.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_request_stop(worker: *mut gw_worker_t, mode: i32) {
    // No lock, no allocation, nothing that can panic: a use is counted, a number stored, a byte written.
    let Ok(worker) = look(worker) else { return };
    let mode = if mode == GW_STOP_ABORT { GW_STOP_ABORT } else { GW_STOP_GRACEFUL };
    let ran = worker.0.runs();
    worker.0.stop.fetch_max(mode, Ordering::AcqRel);
    let _ = worker.0.state.compare_exchange(GW_STATE_RUNNING, GW_STATE_STOPPING, Ordering::AcqRel, Ordering::Acquire);
    if ran && !worker.0.runs() {
        // It has ended meanwhile, and the next start is not meant.
        let _ = worker.0.stop.compare_exchange(mode, 0, Ordering::AcqRel, Ordering::Acquire);
    }
    worker.0.control.notify();
}

/// Waits until the worker has ended: GW_OK, or GW_TIMEOUT. GW_ERR_STUCK, naming job, task and thread, if handlers did not
/// return in time: their jobs were given back. GW_ERR_STUCK, naming job, task and outcome, also if outcomes could not be
/// written: these jobs may run again. A worker ends within its grace period and a second after a stop.
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

/// Waits until every outcome that was given by now is in the database: GW_OK, or GW_TIMEOUT.
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

/// Frees a worker; one that runs is aborted first, and waited for until its stop is over. NULL does nothing. Handles of
/// its jobs stay good. What came with its functions has been freed when this returns, if none of them still runs and no
/// handle of a job is left. From within a function that the library calls it stops the worker, and frees nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_free(worker: *mut gw_worker_t) {
    read((), || {
        let inner = look(worker)?.0.clone();
        if inner.runs() || inner.starting.load(Ordering::Acquire) {
            // SAFETY: it is good for any pointer.
            unsafe { gw_worker_request_stop(worker, GW_STOP_ABORT) };
            if is_inside() {
                warn!("a worker was freed by a function that it calls: it stops, and its handle is left as it is");
                return Ok(());
            }
        }
        // A start that is under way ends first, and none begins any more.
        inner.setup.lock().freed = true;
        if inner.runs() {
            // SAFETY: the same.
            unsafe { gw_worker_request_stop(worker, GW_STOP_ABORT) };
            let _ = inner.wait(None);
        }
        handle::free::<WorkerValue, _>(worker)?;
        // Whoever waits for an event of a worker that never ran.
        inner.events.close();
        // What came with the caller's functions is freed before this returns, unless one of them has not.
        inner.join();
        Ok(())
    });
}

/// One of GW_STATE_.... -1 on a bad handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_state(worker: *const gw_worker_t) -> i32 {
    look(worker).map_or(-1, |worker| worker.0.state.load(Ordering::Acquire))
}

/// The id under which the worker holds jobs, a new one at each start. NULL before the first. Valid until the next start.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_id(worker: *const gw_worker_t) -> *const c_char {
    read(ptr::null(), || {
        let worker = look(worker)?;
        Ok(worker.0.current.read_recursive().as_ref().map_or(ptr::null(), |current| current.home.worker_id.as_ptr()))
    })
}

/// The worker's client. Borrowed; NULL before the first start, good until the next one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_client(worker: *mut gw_worker_t) -> *mut gw_client_t {
    read(ptr::null_mut(), || {
        let worker = look(worker)?;
        let client = worker.0.current.read_recursive().as_ref().map_or(0, |current| current.home.client);
        Ok(ptr::without_provenance_mut(client))
    })
}

/// Gives the next job, started; the caller ends it with `gw_job_complete` or `gw_job_fail`, and frees it. At most
/// `concurrency` jobs that have not ended are out at once. GW_TIMEOUT: none came in time. GW_WOKEN: `gw_worker_wakeup`
/// was called. GW_STOPPED: none will come any more, which every caller is told, for ever. With `deliver_cancellations`
/// GW_CANCELLED: `*job` is a further handle, to be freed, of a job that was given out earlier and is to end early.
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
                // SAFETY: it is not NULL; see "Rules" in the header.
                unsafe { put(job, found) };
                Ok(status)
            }
        }
    })
}

/// The same for up to `capacity` jobs at once; how many came is written to `count`. Waits for the first only. Tells of no
/// cancelled jobs: those come by `gw_worker_next`, for which GW_WOKEN says that one waits.
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
                            // SAFETY: the header says that there is room for `capacity` jobs.
                            unsafe { *jobs.add(came) = given };
                            came += 1;
                        }
                        Err(failure) if came == 0 => return Err(failure),
                        // Those before it are the caller's.
                        Err(_) => break,
                    },
                    Next::Over if came == 0 => return Ok(Found::Status(GW_STOPPED)),
                    Next::Over | Next::Nothing | Next::Cancelled(_) => break,
                }
            }
            Ok(match came {
                // Not ours to take, and nobody must miss it because we found nothing and silenced the wakeup.
                0 if current.source.has_notices() => Found::Status(GW_WOKEN),
                0 => Found::Status(GW_TIMEOUT),
                _ => Found::Something(GW_OK, came),
            })
        })?;
        match found {
            Found::Status(status) => Ok(status),
            Found::Something(status, came) => {
                // SAFETY: it is not NULL; see "Rules" in the header.
                unsafe { put(count, came) };
                Ok(status)
            }
        }
    })
}

/// A file descriptor to poll for reading: readable while `gw_worker_next` with a timeout of 0 would not answer GW_TIMEOUT,
/// and perhaps once too often. It is the library's: neither read nor close it. Edge-triggered pollers call
/// `gw_worker_next` after each wake until GW_TIMEOUT. The same from `gw_worker_new` to `gw_worker_free`; -1 on a bad
/// handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_fd(worker: *const gw_worker_t) -> i32 {
    look(worker).map_or(-1, |worker| worker.0.wakeup.fd())
}

/// Lets one waiting or later `gw_worker_next` answer GW_WOKEN. ASYNC-SIGNAL-SAFE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_wakeup(worker: *mut gw_worker_t) {
    let Ok(worker) = look(worker) else { return };
    worker.0.woken.store(true, Ordering::Release);
    worker.0.wakeup.notify();
}

/// What a worker has done since its last start, and what it is doing. Set `struct_size` before the call; fields are only
/// ever added, at the end.
#[repr(C)]
pub struct gw_stats_t {
    /// The size of this struct as the caller knows it.
    pub struct_size: usize,
    /// Jobs claimed.
    pub claimed: u64,
    /// Jobs that succeeded.
    pub completed: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that failed and are tried again.
    pub retried: u64,
    /// Jobs that failed for good.
    pub permanently_failed: u64,
    /// Jobs given back before they started, or interrupted by a stop.
    pub returned: u64,
    /// Jobs that asked to be run again later.
    pub snoozed: u64,
    /// Jobs that took longer than their task may.
    pub timed_out: u64,
    /// Jobs that went on after that.
    pub stuck: u64,
    /// Outcomes that the database refused, because the job was no longer this worker's.
    pub lost: u64,
    /// Jobs that the database held for the worker without its knowing.
    pub reconciled: u64,
    /// Database calls that failed and were tried again.
    pub database_errors: u64,
    /// Jobs that wait for a thread, now.
    pub held: u64,
    /// Jobs that run, now.
    pub running: u64,
    /// Jobs claimed and not settled, now.
    pub in_flight: u64,
    /// For how long the oldest outcome has waited to be written, in microseconds.
    pub settle_lag_us: u64,
    /// Events that nobody was told of.
    pub events_dropped: u64,
}

fn statistics(worker: *const gw_worker_t) -> Result<WorkerStats, Failure> {
    let worker = look(worker)?.0.current.read_recursive().as_ref().map(|current| current.worker.clone());
    Ok(worker.map(|worker| worker.stats()).unwrap_or_default())
}

/// Reads the worker's statistics; all zero before the first start. `stats->struct_size` says how much the caller knows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_stats(worker: *const gw_worker_t, stats: *mut gw_stats_t) -> gw_status_t {
    super::status_of(|| {
        wanted("stats", stats)?;
        let read = statistics(worker)?;
        // SAFETY: it is not NULL, and the header says that `struct_size` is set.
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
        // SAFETY: the caller's struct has at least so many bytes, as ours has.
        unsafe { ptr::copy_nonoverlapping((&raw const full).cast::<u8>(), stats.cast::<u8>(), known) };
        Ok(())
    })
}

/// All statistics as JSON, with open sessions and the sizes and times of claims, statements and handlers. NULL on a bad
/// handle. The caller frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gw_worker_stats_json(worker: *const gw_worker_t) -> *mut c_char {
    read(ptr::null_mut(), || Ok(text::give(json::stats(&statistics(worker)?).to_string())))
}
