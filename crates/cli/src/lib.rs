//! The command line: one file for each command. `main.rs` turns what comes back into an exit code.

#![allow(clippy::doc_markdown, reason = "doc comments on arguments are help texts")]

mod bench;
mod completions;
mod config;
mod dev;
mod dev_file;
mod doctor;
mod exchange;
mod forget;
mod health;
mod man;
mod publish;
mod redis_function;
mod serve;
mod settings;
mod source;
mod tail;
#[cfg(test)]
mod tests;
mod token;

use std::{
    fmt::{Display, Write as _},
    io::{self, Write},
    process::ExitCode,
    sync::LazyLock,
};

use anyhow::Context;
use carillon::printable;
use clap::{Parser, Subcommand, error::ErrorKind};

/// Wrong usage that only the command itself could see: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Tells every connected CMS editor, at once and reliably, that something changed.
#[derive(Debug, Parser)]
#[command(name = "carillon", version = version(), subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Examples:
  carillon dev                                        look around: one node, nothing else needed
  carillon serve --config /etc/carillon/carillon.toml run a node
  carillon publish comments:42 '{\"type\":\"comment.created\"}'

`carillon COMMAND --help` has an example of each. Exit codes: 0 success, 1 failure, 2 wrong usage.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The version, and what this build has of what can be left out.
fn version() -> &'static str {
    const PARTS: [(&str, bool); 2] =
        [("jemalloc", cfg!(feature = "jemalloc")), ("OTLP traces", cfg!(feature = "otlp"))];
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let mut text = env!("CARGO_PKG_VERSION").to_owned();
        for (word, present) in [("with", true), ("without", false)] {
            let parts: Vec<_> = PARTS.iter().filter(|part| part.1 == present).map(|part| part.0).collect();
            if !parts.is_empty() {
                let _ = write!(text, "\n{word}: {}", parts.join(", "));
            }
        }
        text
    });
    &TEXT
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Dev(dev::Dev),
    Publish(publish::Publish),
    Tail(tail::Tail),
    #[command(subcommand)]
    Token(token::Token),
    #[command(subcommand)]
    Config(config::ConfigCommand),
    RedisFunction(redis_function::RedisFunction),
    #[command(subcommand)]
    Source(source::SourceCommand),
    Forget(forget::Forget),
    Health(health::Health),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    Completions(completions::Completions),
    Man(man::Man),
}

impl Cli {
    /// Does what was asked for. An error is printed by `main`, as one sentence.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(command) => wait_for(command.run()),
            Command::Dev(command) => wait_for(command.run()),
            Command::Publish(command) => wait_for(command.run()),
            Command::Tail(command) => wait_for(command.run()),
            Command::Token(command) => wait_for(command.run()),
            Command::Config(command) => wait_for(command.run()),
            Command::RedisFunction(command) => command.run(),
            Command::Source(command) => wait_for(command.run()),
            Command::Forget(command) => wait_for(command.run()),
            Command::Health(command) => wait_for(command.run()),
            Command::Doctor(command) => wait_for(command.run()),
            Command::Bench(command) => wait_for(command.run()),
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
        }
    }
}

/// What is wrong with a command line, in one sentence; `None` where help (or the version) is the answer.
pub fn sentence(answer: &clap::Error) -> Option<String> {
    if !answer.use_stderr() || answer.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return None;
    }
    let text = answer.render().to_string();
    let mut paragraphs =
        text.split("\n\n").map(|lines| lines.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut sentence = paragraphs.next()?.trim_start_matches("error: ").trim_end_matches('.').to_owned();
    for paragraph in paragraphs {
        if let Some(usage) = paragraph.strip_prefix("Usage: ") {
            let _ = write!(sentence, " (usage: {usage})");
        } else {
            let _ = write!(
                sentence,
                "; {}",
                paragraph.replace("For more information, try", "for more, try").trim_end_matches('.')
            );
        }
    }
    Some(sentence)
}

fn wait_for(command: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    // A second installation is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the system does not let Carillon start threads")?;
    let result = runtime.block_on(command);
    // A read of standard input cannot be called back: do not wait for it.
    runtime.shutdown_background();
    result
}

/// Says something to whoever started the command, on standard error. A word of a stranger in it does nothing to their
/// terminal.
pub fn say(sentence: impl Display) {
    eprintln!("carillon: {}", printable::lines(&sentence.to_string()));
}

/// Writes to standard output. Whoever closed it has seen enough: that is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    is_read(text).map(drop)
}

/// Writes to standard output what nothing of a stranger acts through on a terminal. `false`: nobody reads it any more.
fn is_read(text: &str) -> anyhow::Result<bool> {
    is_written(&printable::lines(text))
}

/// Writes to standard output, colours too: nothing in it is a stranger's that was not made printable.
fn is_written(text: &str) -> anyhow::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).context("standard output"),
    }
}
