//! The C API: what `include/graphile_worker.h` declares. It only converts. Each function checks its handles, reads its
//! arguments, makes one call of the library, and returns the result.
//!
//! Every function goes through [`call`] or [`read`], which catch panics. Times are microseconds since 1970, timeouts
//! and delays milliseconds. Numbers from C are never Rust enums, so an unknown number is an error.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)] // The caller's duties are in section "Rules" of the header.
#![allow(non_camel_case_types)] // The names are C's.

mod boundary;
mod call;
mod client;
mod config;
mod cron;
mod error;
mod events;
mod failure;
mod handle;
mod inside;
mod job;
mod json;
mod keys;
mod library;
mod lifecycle;
mod log;
mod process;
mod pull;
mod spec;
mod status;
mod task;
mod text;
mod user_data;
mod wakeup;
mod worker;
mod worker_stats;
