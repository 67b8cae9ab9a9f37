//! The C API: what `include/graphile_worker.h` declares. It only converts. Each function checks its handles, reads its
//! arguments, makes one call of the library, and returns the result.
//!
//! Every function goes through `call` or `read`, which catch panics. Times are microseconds since 1970, timeouts and
//! delays milliseconds. Numbers from C are never Rust enums, so an unknown number is an error.
//!
//! The files, lowest first. Each imports only files that stand before it; a test in `tests/architecture.rs` checks this.
//!
//! What every function needs:
//! 1. `status`: the numbers that calls return.
//! 2. `failure`: why a call failed; the library's errors become failures here.
//! 3. `user_data`: pointers of the caller's.
//! 4. `inside`: whether this thread is within a function of the caller's.
//! 5. `boundary`: results that are read or written, without error objects.
//! 6. `text`: texts and lists.
//! 7. `library`: versions.
//! 8. `handle`: handles of any kind.
//! 9. `error`: error objects.
//! 10. `call`: the frame of calls that can fail.
//!
//! Values:
//! 11. `json`: the library's values as JSON.
//! 12. `wakeup`: file descriptors to poll, and waiting for them.
//! 13. `cron`: crontabs.
//! 14. `keys`: the configuration keys.
//! 15. `event`: events.
//! 16. `event_queue`: events that wait to be pulled.
//! 17. `log`: the log sink.
//! 18. `process`: the logger and the signals of threads.
//! 19. `config`: configurations.
//! 20. `spec`: jobs to add.
//! 21. `client`: making a client, and adding jobs.
//! 22. `admin`: managing jobs.
//! 23. `job`: jobs to run.
//! 24. `task`: task functions.
//!
//! Workers:
//! 25. `worker`: the handle and its setup.
//! 26. `lifecycle`: start, run and stop.
//! 27. `pull`: pulling jobs.
//! 28. `worker_stats`: statistics.
//! 29. `event_names`: the names of events.
//! 30. `observer`: observing events.
//! 31. `interceptor`: deciding on events.
//! 32. `worker_events`: pulling events.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)] // The caller's duties are in section "Rules" of the header.
#![allow(non_camel_case_types)] // The names are C's.

mod admin;
mod boundary;
mod call;
mod client;
mod config;
mod cron;
mod error;
mod event;
mod event_names;
mod event_queue;
mod failure;
mod handle;
mod inside;
mod interceptor;
mod job;
mod json;
mod keys;
mod library;
mod lifecycle;
mod log;
mod observer;
mod process;
mod pull;
mod spec;
mod status;
mod task;
mod text;
mod user_data;
mod wakeup;
mod worker;
mod worker_events;
mod worker_stats;
