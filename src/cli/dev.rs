//! `dev`: a private PostgreSQL, for as long as this process runs.

use crate::cli::exit::{Exit, Failure, on_interrupt, say};
use crate::cli::screen::{Screen, one_line};
use crossbeam_channel::bounded;
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{Schema, WorkerUtils};
use serde_json::json;

pub(crate) fn run(schema: Schema, screen: &Screen) -> Result<Exit, Failure> {
    // Before the server starts: a Ctrl-C at any moment ends in an orderly way.
    let (interrupted, wait) = bounded(1);
    if let Err(error) = on_interrupt(move || _ = interrupted.try_send(())) {
        say(format_args!("signals cannot be handled ({error}); the server ends with this process all the same"));
    }
    let server = DevDb::start(Options::default())?;
    WorkerUtils::connect(&server.url())?.schema(schema.clone()).migrate()?;
    let answer = json!({ "database_url": server.url(), "schema": schema.name() });
    screen.say(&answer, |_| server.url())?;
    say(format_args!(
        "a private PostgreSQL, with the schema {} in it; Ctrl-C ends it and deletes its data",
        one_line(schema.name())
    ));
    let _ = wait.recv();
    Ok(Exit::Success)
}
