//! `graphile-worker`: for operators, and for people who write no code.

fn main() {}
