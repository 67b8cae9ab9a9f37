//! `graphile-worker`: the command line program for operators.
//! Uses only the library's public names.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main().into()
}
