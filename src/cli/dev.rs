//! `dev`: runs a private PostgreSQL until this process ends.

use crate::cli::exit::{Exit, Failure, on_interrupt};
use crate::cli::screen::{Screen, one_line, print_message};
use crossbeam_channel::bounded;
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{Schema, WorkerUtils};
use serde_json::json;

pub(crate) fn run(schema: Schema, screen: &Screen) -> Result<Exit, Failure> {
    // Before the server starts, so that a Ctrl-C at any moment deletes the server.
    let (interrupted, wait) = bounded(1);
    if let Err(error) = on_interrupt(move || _ = interrupted.try_send(())) {
        print_message(format_args!("cannot handle signals ({error}); the server still ends with this process"));
    }
    let server = DevDb::start(Options::default())?;
    WorkerUtils::connect(&server.url())?.schema(schema.clone()).migrate()?;
    let answer = json!({ "database_url": server.url(), "schema": schema.name() });
    screen.print(&answer, |_| server.url())?;
    print_message(format_args!(
        "a private PostgreSQL with the schema {} is running; Ctrl-C stops it and deletes its data",
        one_line(schema.name())
    ));
    let _ = wait.recv();
    Ok(Exit::Success)
}
