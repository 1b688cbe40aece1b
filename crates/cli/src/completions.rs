//! `carillon completions`: what shells need to complete commands and options.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, print};

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  carillon completions bash > /etc/bash_completion.d/carillon")]
pub(super) struct Completions {
    /// Which shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "carillon", &mut text);
        print(&String::from_utf8(text)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
