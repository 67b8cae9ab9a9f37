//! The command line: what can be said, where the queue is, and how the process ends.
//! Each command stands in a file of its own or with its like; what they print goes through `screen.rs`.

mod add;
mod change;
mod dev;
mod exit;
mod look;
mod screen;
mod upkeep;
mod values;

use clap::{Args, Parser, Subcommand};
use exit::{Exit, Failure};
use graphile_worker::{Schema, WorkerUtils};
use screen::Screen;
use std::time::Duration;

/// Graphile Worker's PostgreSQL job queue: installs, fills, inspects and mends it.
#[derive(Parser)]
#[command(name = "graphile-worker", version, arg_required_else_help = true, after_help = exit::help())]
struct Cli {
    #[command(flatten)]
    place: Place,
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Which queue of which database. Before or after the command.
#[derive(Args)]
struct Place {
    /// Where the database is: a URL or key=value string, as libpq reads it.
    // Its value may hold a password, which help must not print.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// The schema of the queue.
    #[arg(long, env = SCHEMA_VARIABLE, global = true, value_name = "NAME", default_value = "graphile_worker")]
    schema: String,
    /// How many connections may be open at once.
    #[arg(long, global = true, value_name = "NUMBER", default_value_t = 5)]
    max_connections: u32,
    /// How long to wait for the database: 300, 30s, 5m, 2h.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    timeout: Duration,
}

/// The variables of libpq that say where a database is, when no URL does.
const PLACES: [&str; 6] = ["PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"];

impl Place {
    fn schema(&self) -> Result<Schema, Failure> {
        Ok(Schema::new(&self.schema)?)
    }

    fn utils(&self) -> Result<WorkerUtils, Failure> {
        let schema = self.schema()?;
        let url = self.database_url.as_deref().unwrap_or_default();
        let says_where = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        if url.is_empty() && !PLACES.into_iter().any(says_where) {
            return Err(Failure::usage(format!(
                "where is the database? Say --database-url URL, or set DATABASE_URL or one of {}",
                PLACES.join(", ")
            )));
        }
        Ok(WorkerUtils::connect_within(url, self.max_connections, self.timeout)?.schema(schema))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Installs the queue's schema, or takes over the one that is there. Safe to repeat.
    Migrate,
    /// Adds a job.
    Add(add::Add),
    /// Lists jobs by id, without their payloads.
    List(look::List),
    /// Shows one job, with its payload.
    Show(look::Show),
    /// Deletes jobs as if they had succeeded. Jobs that run are left alone.
    Complete(change::Complete),
    /// Fails jobs for good. Jobs that run are left alone.
    Fail(change::Fail),
    /// Changes when, how urgently and how often jobs are tried. Jobs that run are left alone.
    Reschedule(change::Reschedule),
    /// Removes the job with a key. One that runs goes on, and is not tried again.
    Remove(change::Remove),
    /// Deletes rows that nobody needs any more. Safe beside workers and enqueues.
    Cleanup(upkeep::Cleanup),
    /// Unlocks the jobs and queues of workers that are known to be dead.
    ForceUnlock(upkeep::ForceUnlock),
    /// Counts jobs by state.
    Stats,
    /// Lists the named queues, and who holds them.
    Queues,
    /// Lists the workers that hold something, or say that they live.
    Workers(look::Workers),
    /// Recovers the jobs of workers that have stopped saying that they live.
    SweepStaleWorkers(upkeep::SweepStaleWorkers),
    /// Starts a private PostgreSQL with the schema in it, prints its URL, and stays until Ctrl-C;
    /// then server and data are gone.
    Dev,
}

pub(crate) fn main() -> Exit {
    screen::show_warnings();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // It quotes the command line, into which a script may have put anything.
            eprint!("{}", screen::lines(&error.to_string()));
            return Exit::Usage;
        }
        Err(help) => help.exit(),
    };
    cli.run().unwrap_or_else(|failure| failure.tell(&cli.place.schema))
}

/// The options of the command line that the environment may have under this prefix. Workers read others.
const SCHEMA_VARIABLE: &str = "GRAPHILE_WORKER_SCHEMA";

/// Refuses a variable whose name is that of an option but for two letters: a misspelled schema would be another queue.
fn check_environment(names: impl Iterator<Item = String>) -> Result<(), Failure> {
    for name in names.filter(|name| name != SCHEMA_VARIABLE && name.to_ascii_uppercase().starts_with("GRAPHILE")) {
        if strsim::damerau_levenshtein(&name.to_ascii_uppercase(), SCHEMA_VARIABLE) <= 2 {
            return Err(Failure::usage(format!(
                "the environment has {name}, which is no option; did you mean {SCHEMA_VARIABLE}?"
            )));
        }
    }
    Ok(())
}

impl Cli {
    fn run(&self) -> Result<Exit, Failure> {
        check_environment(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))?;
        let screen = &Screen { json: self.json };
        if matches!(self.command, Command::Dev) {
            return dev::run(self.place.schema()?, screen);
        }
        // Without a handler the signal ends us all the same.
        let _ = exit::on_interrupt(exit::interrupted);
        let utils = self.place.utils()?;
        match &self.command {
            Command::Migrate => upkeep::migrate(utils, &self.place.schema, screen),
            Command::Add(add) => add.run(utils, screen),
            Command::List(list) => list.run(utils, screen),
            Command::Show(show) => show.run(utils, screen),
            Command::Complete(complete) => complete.run(utils, screen),
            Command::Fail(fail) => fail.run(utils, screen),
            Command::Reschedule(reschedule) => reschedule.run(utils, screen),
            Command::Remove(remove) => remove.run(utils, screen),
            Command::Cleanup(cleanup) => cleanup.run(utils, screen),
            Command::ForceUnlock(unlock) => unlock.run(utils, screen),
            Command::Stats => look::stats(utils, screen),
            Command::Queues => look::queues(utils, screen),
            Command::Workers(workers) => workers.run(utils, screen),
            Command::SweepStaleWorkers(sweep) => sweep.run(utils, screen),
            Command::Dev => unreachable!("it needs no database, and was run above"),
        }
    }
}
