//! The behaviour of the whole, against a private PostgreSQL: one binary, one module a behaviour.

mod admin;
mod batch;
mod cases;
mod cli;
mod connect;
mod cron;
mod devdb;
mod enqueue;
mod examples;
mod faults;
mod harness;
mod hooks;
mod idle;
mod jobs;
mod keys;
mod local_queue;
mod manual;
mod observe;
mod plans;
mod proxy;
mod queues;
mod recovery;
mod retry;
mod stop;
mod timeout;
mod wire;
