//! The statements that an idle worker sends to the database.

use crate::harness::{Running, SOON, TestDb, eventually};
use crate::proxy::Proxy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How the statement that looks at the tasks begins.
const LOOK_AT_TASKS: &str = "-- Counts the due jobs of";

#[test]
fn an_idle_worker_sends_about_one_claim_a_poll_interval() {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    let (claims, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counters, first_look, mut looked) =
        ((claims.clone(), others.clone()), Arc::new(AtomicBool::new(false)), false);
    let look = first_look.clone();
    proxy.drop_reply_to(1, move |sent| {
        // A second after its start, the worker looks at the tasks for the first time. The next look is a minute away.
        if looked {
            let counter = if sent.sql.starts_with("-- Claims") { &counters.0 } else { &counters.1 };
            counter.fetch_add(1, Ordering::SeqCst);
        }
        looked = looked || sent.sql.starts_with(LOOK_AT_TASKS);
        look.store(looked, Ordering::SeqCst);
        false
    });
    let options = db.worker().database_url(&proxy.url(&db.url())).poll_interval(Duration::from_millis(250));
    let _running = Running::start(options.define_raw_job("t", |_| ()));
    eventually(SOON, || first_look.load(Ordering::SeqCst));
    std::thread::sleep(Duration::from_secs(3));
    let (claims, others) = (claims.load(Ordering::SeqCst), others.load(Ordering::SeqCst));
    assert!(
        (8..=13).contains(&claims) && others <= 2,
        "{claims} claims and {others} other statements in 12 poll intervals"
    );
}
