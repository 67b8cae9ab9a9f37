//! What the drivers in Rust print for benches/peers.rs, which describes the lines. Knows nothing of any library.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time between two jobs of `trickle`.
pub const PAUSE: Duration = Duration::from_millis(10);

static RAN: AtomicU64 = AtomicU64::new(0);

/// Waits for the line that starts the worker. From then on, a thread prints how many jobs ran, and another ends the
/// process if the bench has ended.
pub fn start() {
    println!("ready");
    std::io::stdin().read_line(&mut String::new()).expect("a line");
    thread::spawn(|| {
        while std::io::stdin().read_line(&mut String::new()).is_ok_and(|length| length > 0) {}
        std::process::exit(1);
    });
    thread::spawn(|| {
        let mut printed = 0;
        loop {
            thread::sleep(Duration::from_millis(10));
            let ran = RAN.load(Ordering::Relaxed);
            if ran != printed {
                println!("ran {ran}");
                printed = ran;
            }
        }
    });
}

/// The task `noop`.
pub fn noop() {
    RAN.fetch_add(1, Ordering::Relaxed);
}

/// The task `stamp`.
pub fn stamp(n: u64) {
    println!("at {n} {}", now_us());
}

pub fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_micros()
}
