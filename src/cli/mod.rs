//! The command line: commands, global options, and the exit status of the process.
//! Each file has one command or a group of similar commands. All output goes through `screen.rs`.
//!
//! The files, lowest first. Each imports only files that stand before it; a test in `tests/architecture.rs` checks this.
//!
//! 1. `screen`: the output.
//! 2. `exit`: the exit status, and errors.
//! 3. `values`: the values of options.
//! 4. `look`: list, show, stats, queues, workers.
//! 5. `add`: add.
//! 6. `change`: complete, fail, reschedule, remove.
//! 7. `upkeep`: migrate, cleanup, force-unlock, sweep-stale-workers.
//! 8. `dev`: dev.

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

/// Administers Graphile Worker's PostgreSQL job queue: installs it, adds jobs, inspects and repairs it.
#[derive(Parser)]
#[command(name = "graphile-worker", version, arg_required_else_help = true, after_help = exit::help())]
struct Cli {
    #[command(flatten)]
    queue: QueueOptions,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// The queue: database and schema. These options are allowed before and after the command.
#[derive(Args)]
struct QueueOptions {
    /// The database: a URL or key=value string, as libpq reads it.
    // The value may contain a password, which `--help` must not print.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, global = true, value_name = "URL")]
    database_url: Option<String>,
    /// The schema of the queue.
    #[arg(long, env = SCHEMA_VARIABLE, global = true, value_name = "NAME", default_value = "graphile_worker")]
    schema: String,
    /// The most connections to open at once.
    #[arg(long, global = true, value_name = "NUMBER", default_value_t = 5)]
    max_connections: u32,
    /// How long to wait for the database: 300, 30s, 5m, 2h.
    #[arg(long, global = true, value_name = "DURATION", default_value = "10s", value_parser = values::duration)]
    timeout: Duration,
}

/// libpq's variables that select a database if there is no URL.
const DATABASE_VARIABLES: [&str; 6] = ["PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE"];

impl QueueOptions {
    fn schema(&self) -> Result<Schema, Failure> {
        Ok(Schema::new(&self.schema)?)
    }

    fn utils(&self) -> Result<WorkerUtils, Failure> {
        let schema = self.schema()?;
        let url = self.database_url.as_deref().unwrap_or_default();
        let is_set = |variable| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        if url.is_empty() && !DATABASE_VARIABLES.into_iter().any(is_set) {
            return Err(Failure::usage(format!(
                "no database selected; use --database-url URL, or set DATABASE_URL or one of {}",
                DATABASE_VARIABLES.join(", ")
            )));
        }
        Ok(WorkerUtils::connect_within(url, self.max_connections, self.timeout)?.schema(schema))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Installs the queue's schema, or updates the existing one. Safe to repeat.
    Migrate,
    /// Adds a job.
    Add(add::Add),
    /// Lists jobs by id, without their payloads.
    List(look::List),
    /// Shows one job, with its payload.
    Show(look::Show),
    /// Deletes jobs as if they had succeeded. Running jobs are left unchanged.
    Complete(change::Complete),
    /// Fails jobs permanently. Running jobs are left unchanged.
    Fail(change::Fail),
    /// Changes run time, priority and attempts of jobs. Running jobs are left unchanged.
    Reschedule(change::Reschedule),
    /// Removes the job with a key. A running job keeps running, and is not retried.
    Remove(change::Remove),
    /// Deletes rows that are no longer needed. Safe while workers run and jobs are added.
    Cleanup(upkeep::Cleanup),
    /// Unlocks the jobs and queues of workers that are known to be dead.
    ForceUnlock(upkeep::ForceUnlock),
    /// Counts jobs by state.
    Stats,
    /// Lists the named queues and the workers that hold them.
    Queues,
    /// Lists the workers that hold jobs or queues, or have sent a heartbeat.
    Workers(look::Workers),
    /// Recovers the jobs of workers that send no heartbeat any more.
    SweepStaleWorkers(upkeep::SweepStaleWorkers),
    /// Starts a private PostgreSQL with the schema, prints its URL, and runs until Ctrl-C;
    /// then it deletes server and data.
    Dev,
}

pub(crate) fn main() -> Exit {
    screen::show_warnings();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            // The error quotes the command line, which may contain control characters.
            eprint!("{}", screen::lines(&error.to_string()));
            return Exit::Usage;
        }
        Err(help) => help.exit(),
    };
    cli.run().unwrap_or_else(|failure| failure.report(&cli.queue.schema))
}

/// The only variable with the prefix `GRAPHILE_WORKER_` that the command line reads. Workers read others.
const SCHEMA_VARIABLE: &str = "GRAPHILE_WORKER_SCHEMA";

/// Refuses a variable whose name differs from an option's by at most two letters: a misspelled schema would select
/// another queue.
fn check_environment(names: impl Iterator<Item = String>) -> Result<(), Failure> {
    for name in names.filter(|name| name != SCHEMA_VARIABLE && name.to_ascii_uppercase().starts_with("GRAPHILE")) {
        if strsim::damerau_levenshtein(&name.to_ascii_uppercase(), SCHEMA_VARIABLE) <= 2 {
            return Err(Failure::usage(format!(
                "unknown environment variable {name}; did you mean {SCHEMA_VARIABLE}?"
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
            return dev::run(self.queue.schema()?, screen);
        }
        // Without a handler, the signal still ends the process.
        let _ = exit::on_interrupt(exit::interrupted);
        let utils = self.queue.utils()?;
        match &self.command {
            Command::Migrate => upkeep::migrate(utils, &self.queue.schema, screen),
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
            Command::Dev => unreachable!("`dev` needs no database, and was run above"),
        }
    }
}
