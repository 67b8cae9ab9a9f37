//! `graphile-worker`: for operators, and for people who write no code.
//! Sees only the library's public names.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main().into()
}
