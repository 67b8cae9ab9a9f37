//! Deadlines for calls that have none: the call runs on a helper thread, and we stop waiting for it.
//! Knows nothing of databases.
//!
//! The sync `postgres` client cannot be interrupted while its server is stopped. A late call keeps
//! its helper (and the client it was given) until the socket fails or the server goes on; how many
//! can be late at once is bounded by whoever owns the clients, a pool.

use crate::error::{Error, ErrorKind, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use parking_lot::{Mutex, MutexGuard};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

type Task = Box<dyn FnOnce() + Send>;

/// Helpers that wait for work, and the process they are of: a forked child has the list, and not the threads. A
/// helper leaves after ten idle seconds.
static IDLE: Mutex<(u32, Vec<Sender<Task>>)> = Mutex::new((0, Vec::new()));
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Whoever held the list when this process was forked holds it for ever; then there are no helpers to find.
const LIST_PATIENCE: Duration = Duration::from_millis(100);

/// Called by each helper as it begins. Set by whoever has rules for the threads of its process.
pub(crate) static HELPER_BEGINS: OnceLock<fn()> = OnceLock::new();

/// Runs `call` and waits for its answer no longer than `deadline`.
///
/// # Errors
/// `Timeout` when it is late; it then goes on alone, and its answer is dropped.
pub(crate) fn call<T: Send + 'static>(deadline: Duration, call: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    start(move |_| call())?.wait(deadline)
}

/// The same for a call that does many things, of which each has the deadline: the call says when one is done.
pub(crate) fn call_in_steps<T: Send + 'static>(
    deadline: Duration,
    call: impl FnOnce(&dyn Fn()) -> T + Send + 'static,
) -> Result<T> {
    start(call)?.wait(deadline)
}

/// A call on its way.
pub(crate) struct Pending<T>(Receiver<Option<T>>);

/// Starts `call` on a helper thread.
pub(crate) fn start<T: Send + 'static>(call: impl FnOnce(&dyn Fn()) -> T + Send + 'static) -> Result<Pending<T>> {
    let (answer, wait) = bounded(1);
    let task: Task = Box::new(move || {
        // One step that is not seen yet is as good as two.
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
    helper.send(task).expect("a helper leaves only after it took itself off the list");
    Ok(Pending(wait))
}

impl<T> Pending<T> {
    /// Waits for the answer no longer than `deadline`, counted from the call's last step.
    ///
    /// # Errors
    /// `Timeout` when it is late; it can be waited for again.
    pub(crate) fn wait(&self, deadline: Duration) -> Result<T> {
        loop {
            match self.0.recv_timeout(deadline) {
                Ok(Some(value)) => return Ok(value),
                Ok(None) => {}
                Err(RecvTimeoutError::Timeout) => return Err(missed(deadline)),
                Err(RecvTimeoutError::Disconnected) => {
                    let text = "the database client panicked; the connection is given up";
                    return Err(Error::new(ErrorKind::Misuse, text));
                }
            }
        }
    }
}

/// The error of a call that did not answer in time.
pub(crate) fn missed(deadline: Duration) -> Error {
    Error::new(ErrorKind::Timeout, format!("the database did not answer within {deadline:?}"))
}

/// The helpers of this process that wait for work.
fn idle() -> Option<MutexGuard<'static, (u32, Vec<Sender<Task>>)>> {
    let mut idle = IDLE.try_lock_for(LIST_PATIENCE)?;
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
                // Somebody took us off the list a moment ago: a task is on its way.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn an_answer_in_time_is_returned_and_a_late_call_is_left_behind() {
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
