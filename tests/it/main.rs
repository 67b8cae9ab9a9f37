//! The behaviour of the whole, against a private PostgreSQL: one binary, one module a behaviour.

mod devdb;
mod enqueue;
mod faults;
mod harness;
mod idle;
mod jobs;
mod proxy;
mod queues;
mod stop;
mod wire;
