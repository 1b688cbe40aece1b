//! `carillon man`: the manual page of the program, or of one command.

use std::process::ExitCode;

use clap::{Args, CommandFactory};

use super::{Cli, Usage, print};

/// Print the manual page of carillon, or of one of its commands
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon man | man -l -
  carillon man publish > carillon-publish.1")]
pub(super) struct Man {
    /// Of this command; `config check` and the like are two words
    #[arg(value_name = "COMMAND")]
    command: Vec<String>,
}

impl Man {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let mut root = Cli::command();
        root.build();
        let mut command = &root;
        for word in &self.command {
            let known =
                || command.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ");
            let unknown = || Usage(format!("there is no command {word}: there are {}", known()));
            command = command.find_subcommand(word).ok_or_else(unknown)?;
        }
        let name =
            std::iter::once("carillon").chain(self.command.iter().map(String::as_str)).collect::<Vec<_>>();
        let page = clap_mangen::Man::new(command.clone()).title(name.join("-"));
        let mut text = Vec::new();
        page.render(&mut text)?;
        print(&String::from_utf8(text)?)?;
        Ok(ExitCode::SUCCESS)
    }
}
