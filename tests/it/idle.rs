//! The statements that an idle worker sends to the database.

use crate::harness::{Running, SOON, TestDb, eventually};
use crate::proxy::Proxy;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[test]
fn an_idle_worker_sends_about_one_claim_a_poll_interval() {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    let (claims, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let options = db.worker().database_url(&proxy.url(&db.url())).poll_interval(Duration::from_millis(250));
    let running = Running::start(options.define_raw_job("t", |_| ()));
    // The worker is connected, its listener has sent its probe, and it polls.
    eventually(SOON, || running.worker.stats().claims > 3);
    let counters = (claims.clone(), others.clone());
    proxy.drop_reply_to(1, move |sent| {
        let counter = if sent.sql.starts_with("-- Claims") { &counters.0 } else { &counters.1 };
        counter.fetch_add(1, Ordering::SeqCst);
        false
    });
    std::thread::sleep(Duration::from_secs(3));
    let (claims, others) = (claims.load(Ordering::SeqCst), others.load(Ordering::SeqCst));
    assert!(
        (8..=13).contains(&claims) && others <= 2,
        "{claims} claims and {others} other statements in 12 poll intervals"
    );
}
