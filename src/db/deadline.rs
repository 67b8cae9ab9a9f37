//! Gives a deadline to calls that have none: a call runs on a helper thread, and the caller stops waiting at the
//! deadline.
//! Knows nothing of databases.
//!
//! The sync `postgres` client cannot be interrupted while its server is stopped. A late call keeps its helper thread,
//! and the client that it was given, until the socket fails or the server continues. The pool that owns the clients
//! bounds how many calls can be late at once.

use crate::error::{Error, ErrorKind, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::{Mutex, MutexGuard};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

type Task = Box<dyn FnOnce() + Send>;

/// The helpers that wait for work, and the id of their process: a forked child has the list, but not the threads. A
/// helper ends after ten idle seconds.
static IDLE: Mutex<(u32, Vec<Sender<Task>>)> = Mutex::new((0, Vec::new()));
const IDLE_TIME: Duration = Duration::from_secs(10);

/// A lock held at the time of a fork stays locked in the child. Then there are no helpers to find.
const LIST_LOCK_TIMEOUT: Duration = Duration::from_millis(100);

/// Each helper calls this as it begins. The C API sets it, to block signals on these threads.
pub(crate) static HELPER_BEGINS: OnceLock<fn()> = OnceLock::new();

/// Runs `call`, and waits at most `deadline` until it returns.
///
/// # Errors
/// `Timeout` if it is late. It then continues alone, and its return value is dropped.
pub(crate) fn call<T: Send + 'static>(deadline: Duration, call: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    start(move |_| call())?.wait(deadline)
}

/// As [`call`], for a call of many steps. Each step has the deadline; the call reports when one is done.
pub(crate) fn call_in_steps<T: Send + 'static>(
    deadline: Duration,
    call: impl FnOnce(&dyn Fn()) -> T + Send + 'static,
) -> Result<T> {
    start(call)?.wait(deadline)
}

/// A call that is running.
pub(crate) struct Pending<T>(Receiver<Option<T>>);

/// Starts `call` on a helper thread.
pub(crate) fn start<T: Send + 'static>(call: impl FnOnce(&dyn Fn()) -> T + Send + 'static) -> Result<Pending<T>> {
    let (answer, wait) = bounded(1);
    let task: Task = Box::new(move || {
        // If the last step is not read yet, this one need not be sent.
        let step = || _ = answer.try_send(None);
        if let Ok(value) = catch_unwind(AssertUnwindSafe(|| call(&step))) {
            let _ = answer.send(Some(value));
        }
    });
    let idle = idle().and_then(|mut idle| idle.1.pop());
    let helper = match idle {
        Some(helper) => helper,
        None => spawn()?,
    };
    helper.send(task).expect("a helper ends only after it took itself off the list");
    Ok(Pending(wait))
}

impl<T> Pending<T> {
    /// Waits at most `deadline` until the call returns, counted from the call's last step.
    ///
    /// # Errors
    /// `Timeout` if it is late. The caller can wait again.
    pub(crate) fn wait(&self, deadline: Duration) -> Result<T> {
        loop {
            match self.0.recv_timeout(deadline) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => {}
                Err(RecvTimeoutError::Timeout) => return Err(missed(deadline)),
                Err(RecvTimeoutError::Disconnected) => {
                    let text = "the database client panicked; the connection is dropped";
                    return Err(Error::new(ErrorKind::Misuse, text));
                }
            }
        }
    }
}

/// The error of a call that did not return in time.
pub(crate) fn missed(deadline: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the database did not reply within {deadline:?}"))
}

/// The helpers of this process that wait for work.
fn idle() -> Option<MutexGuard<'static, (u32, Vec<Sender<Task>>)>> {
    let mut idle = IDLE.try_lock_for(LIST_LOCK_TIMEOUT)?;
    let process = std::process::id();
    if idle.0 != process {
        *idle = (process, Vec::new());
    }
    Some(idle)
}

fn spawn() -> Result<Sender<Task>> {
    let (sender, tasks) = bounded(1);
    let own = sender.clone();
    thread::Builder::new()
        .name("gw-deadline".into())
        .spawn(move || help(&own, &tasks))
        .map_err(|e| Error::new(ErrorKind::Connect, format!("cannot start a helper thread: {e}")).caused_by(e))?;
    Ok(sender)
}

fn help(own: &Sender<Task>, tasks: &Receiver<Task>) {
    HELPER_BEGINS.get().inspect(|begins| begins());
    loop {
        match tasks.recv_timeout(IDLE_TIME) {
            Ok(task) => {
                task();
                let Some(mut idle) = idle() else { return };
                idle.1.push(own.clone());
            }
            Err(_) => {
                let Some(mut idle) = idle() else { return };
                let before = idle.1.len();
                idle.1.retain(|helper| !helper.same_channel(own));
                if idle.1.len() < before {
                    return;
                }
                // Another thread took this helper off the list a moment ago: a task is on its way.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_late_call_is_left_behind() {
        assert_eq!(call(Duration::from_secs(5), || 7).unwrap(), 7);
        let (end, wait) = bounded::<()>(0);
        let start = Instant::now();
        let late = call(Duration::from_millis(20), move || wait.recv()).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Timeout);
        assert!(start.elapsed() < Duration::from_secs(2));
        drop(end);
    }

    #[test]
    fn each_step_of_a_call_has_the_deadline() {
        let pause = Duration::from_millis(100);
        let steps = move |step: &dyn Fn()| {
            for _ in 0..10 {
                std::thread::sleep(pause);
                step();
            }
        };
        call_in_steps(pause * 8, steps).unwrap();
        let late = call_in_steps(pause, move |step| {
            step();
            std::thread::sleep(pause * 20);
        });
        assert_eq!(late.unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_panic_of_the_call_is_an_error_and_the_helper_goes_on() {
        let error = call::<()>(Duration::from_secs(5), || panic!("client bug")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert_eq!(call(Duration::from_secs(5), || 8).unwrap(), 8);
    }
}
