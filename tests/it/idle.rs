//! The statements that an idle worker sends to the database.

use crate::harness::{Running, SOON, TestDb, eventually};
use crate::proxy::Proxy;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn an_idle_worker_sends_about_one_claim_a_poll_interval() {
    let db = TestDb::new();
    let proxy = Proxy::to_server_of(&db.url());
    let (claims, others) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
    let options = db.worker().database_url(&proxy.url(&db.url())).poll_interval(Duration::from_millis(250));
    let running = Running::start(options.define_raw_job("t", |_| ()));
    // The worker is connected, its listener has sent its probe, and it polls.
    eventually(SOON, || running.worker.stats().claims > 3);
    let counters = (claims.clone(), others.clone());
    proxy.drop_reply_to(1, move |sent| {
        match sent.sql.starts_with("-- Claims") {
            true => _ = counters.0.fetch_add(1, Ordering::SeqCst),
            false => counters.1.lock().unwrap().push(sent.sql.to_owned()),
        }
        false
    });
    std::thread::sleep(Duration::from_secs(3));
    let (claims, others) = (claims.load(Ordering::SeqCst), others.lock().unwrap().clone());
    assert!((8..=13).contains(&claims), "{claims} claims in 12 poll intervals");
    // Its duties of every minute or less often, of which some may fall into this time: none of them twice.
    let different: HashSet<&String> = others.iter().collect();
    assert!(others.len() <= 3 && different.len() == others.len(), "{others:#?}");
}
