//! The behaviour of the whole, against a private PostgreSQL: one binary, one module a behaviour.

#[cfg(feature = "cli")]
mod cli;
mod devdb;
mod enqueue;
mod examples;
mod harness;
mod jobs;
mod proxy;
mod queues;
mod stop;
