//! gw-listen: wakes dispatch up at each notification. Knows nothing of jobs: polls find all jobs, notifications only
//! make them start sooner.

use super::{Shared, signal};
use crate::backoff::Backoff;
use crate::engine::stats::{ListenerState, add};
use crate::engine::store::{Role, Store};
use crate::error::{Error, ErrorKind, Result};
use log::{info, warn};
use std::time::{Duration, Instant};

/// How often the session checks, by a notification to itself, that notifications still arrive.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// How long a notification of the session to itself may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Listens until the worker has ended. If the database is away, the worker polls, which dispatch does anyway.
pub(crate) fn listen(shared: &Shared) {
    let worker_id = &shared.worker_id;
    let mut store = shared.store(Role::Listen);
    let mut retry = Backoff::new(Duration::from_millis(50), Duration::from_secs(10));
    let mut degraded = false;
    shared.stats.listener.set(ListenerState::Connecting);
    loop {
        let error = match listen_on_session(shared, &mut store, &mut retry, &mut degraded) {
            Ok(()) => return,
            Err(error) if error.kind() == ErrorKind::Stopped => return,
            Err(error) => error,
        };
        if !degraded {
            degraded = true;
            shared.stats.listener.set(ListenerState::Degraded);
            warn!(worker_id, error:% = error; "no notifications, degraded to polling until they are back");
        }
        shared.error_log.count();
        if shared.stop.drained.wait_timeout(retry.next()) {
            return;
        }
    }
}

/// Listens on one session, until the worker stops or the session fails.
fn listen_on_session(shared: &Shared, store: &mut Store, retry: &mut Backoff, degraded: &mut bool) -> Result<()> {
    let connects = store.connects();
    store.connect()?;
    if store.connects() != connects {
        // Notifications that were sent before this session listened are lost, so one claim looks for their jobs.
        signal(&shared.channels.wake.0);
    }
    let mut probe_due = Instant::now();
    let mut sent_at = None;
    while !shared.stop.drained.is_triggered() {
        if Instant::now() >= probe_due {
            store.probe_listen()?;
            sent_at = Some(Instant::now());
            probe_due = Instant::now() + PROBE_INTERVAL;
        }
        let timeout = sent_at.map_or(PROBE_INTERVAL, |sent: Instant| PROBE_TIMEOUT.saturating_sub(sent.elapsed()));
        match store.wait(timeout.min(probe_due.saturating_duration_since(Instant::now())))? {
            Some(true) => {
                add(&shared.stats.notifications, 1);
                signal(&shared.channels.wake.0);
            }
            Some(false) => {}
            None if sent_at.is_some_and(|sent| sent.elapsed() >= PROBE_TIMEOUT) => {
                store.disconnect();
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "notifications do not arrive; is there a transaction pooler in between?",
                ));
            }
            None => continue,
        }
        // Any notification proves that notifications arrive.
        sent_at = None;
        shared.stats.listener.set(ListenerState::Listening);
        if std::mem::take(degraded) {
            info!(worker_id = shared.worker_id.as_str(); "listening again");
        }
        retry.reset();
    }
    Ok(())
}
