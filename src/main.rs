//! `graphile-worker`: for operators, and for people who write no code.
//! Sees only the library's public names.

use clap::{Args, Parser, Subcommand};
use crossbeam_channel::bounded;
use graphile_worker::devdb::{DevDb, Options};
use graphile_worker::{Error, ErrorKind, Schema, WorkerUtils};
use std::process::ExitCode;

/// Graphile Worker's PostgreSQL job queue: installs it, and runs it for development.
#[derive(Parser)]
#[command(name = "graphile-worker", version, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    place: Place,
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
    #[arg(long, env = "GRAPHILE_WORKER_SCHEMA", global = true, value_name = "NAME", default_value = "graphile_worker")]
    schema: String,
}

#[derive(Subcommand)]
enum Command {
    /// Installs the queue's schema, or takes over the one that is there. Safe to repeat.
    Migrate,
    /// Starts a private PostgreSQL with the schema in it, prints its URL, and stays until Ctrl-C;
    /// then server and data are gone.
    Dev,
}

/// What the process answers.
#[derive(Clone, Copy)]
enum Exit {
    Success = 0,
    /// Anything that is not below.
    Failure = 1,
    /// The command line, the environment or a value in them is wrong; clap uses the same number.
    Usage = 2,
    /// The database cannot be reached, or refuses us.
    Database = 3,
    /// The schema there is not one that we can use.
    Schema = 4,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Migrate => migrate(&cli.place),
        Command::Dev => dev(&cli.place),
    };
    let exit = match result {
        Ok(()) => Exit::Success,
        Err(error) => {
            eprintln!("graphile-worker: {error}");
            exit_of(error.kind())
        }
    };
    ExitCode::from(exit as u8)
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Config => Exit::Usage,
        ErrorKind::Connect | ErrorKind::Auth | ErrorKind::Tls | ErrorKind::Timeout | ErrorKind::Database => {
            Exit::Database
        }
        ErrorKind::Schema => Exit::Schema,
        _ => Exit::Failure,
    }
}

fn migrate(place: &Place) -> Result<(), Error> {
    let Some(url) = &place.database_url else {
        eprintln!("graphile-worker: where is the database? Say --database-url URL, or set DATABASE_URL");
        std::process::exit(Exit::Usage as i32);
    };
    let schema = Schema::new(&place.schema)?;
    WorkerUtils::connect(url)?.schema(schema).migrate()?;
    println!("schema {} is ready", place.schema);
    Ok(())
}

fn dev(place: &Place) -> Result<(), Error> {
    let schema = Schema::new(&place.schema)?;
    // Before the server starts: a Ctrl-C at any moment ends in an orderly way.
    let (interrupted, wait) = bounded(1);
    if let Err(error) = ctrlc::set_handler(move || _ = interrupted.try_send(())) {
        eprintln!(
            "graphile-worker: signals cannot be handled ({error}); the server ends with this process all the same"
        );
    }
    let server = DevDb::start(Options::default())?;
    WorkerUtils::connect(&server.url())?.schema(schema).migrate()?;
    println!("{}", server.url());
    eprintln!("a private PostgreSQL, with the schema {} in it; Ctrl-C ends it and deletes its data", place.schema);
    let _ = wait.recv();
    Ok(())
}
