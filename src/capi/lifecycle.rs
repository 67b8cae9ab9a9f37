//! A worker's start, run and stop, and its threads gw-worker and gw-control.

use super::boundary::read;
use super::call::call;
use super::client::{ClientValue, gw_client_t};
use super::error::gw_error_t;
use super::failure::Failure;
use super::handle;
use super::inside::{is_inside, not_inside};
use super::job::Home;
use super::keys::Reader;
use super::process::SignalsBlocked;
use super::status::{GW_ERR_HANDLE, GW_ERR_NOMEM, GW_OK, GW_TIMEOUT, gw_status_t};
use super::text;
use super::wakeup::deadline;
use super::worker::{
    Current, End, GW_RUN_FOREVER, GW_RUN_ONCE, GW_STATE_FAILED, GW_STATE_NEW, GW_STATE_RUNNING, GW_STATE_STOPPED,
    GW_STATE_STOPPING, GW_STOP_ABORT, GW_STOP_GRACEFUL, Hooks, Inner, WorkerValue, gw_worker_t, look, state_error,
};
use crate::Worker;
use crate::engine::pull::JobSource;
use crate::lock::held;
use log::warn;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use std::{ptr, thread};

/// Marks a start as in progress until it is dropped.
struct Start<'a>(&'a AtomicBool);

impl Drop for Start<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Inner {
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
