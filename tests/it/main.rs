//! The behaviour of the whole, against a private PostgreSQL: one binary, one module a behaviour.

mod connect;
mod devdb;
mod enqueue;
mod harness;
mod jobs;
mod plans;
mod proxy;
mod queues;
mod stop;
