//! The `carillon` program: arguments in, an exit code out. 0 success, 1 failure, 2 wrong usage.

use std::process::ExitCode;

use carillon_cli::{Cli, Usage};
use clap::Parser;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version come this way too, with exit code 0. A closed pipe is not worth a word.
            match carillon_cli::sentence(&answer) {
                Some(sentence) => carillon_cli::say(sentence),
                None => drop(answer.print()),
            }
            return u8::try_from(answer.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            carillon_cli::say(format_args!("{error:#}"));
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}
