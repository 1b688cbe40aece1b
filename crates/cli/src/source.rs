//! `carillon source`: the publishers that vouch for themselves, as Redis has them; and how one is forgotten.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use carillon::{
    app::wiring,
    bus::{Source, Sources, redis::Publisher},
    protocol::time::rfc3339,
    shutdown::Tasks,
};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Usage, print, say, settings};

/// See which sources (publishers that vouch for themselves) may be late, and forget one
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  carillon source list --config /etc/carillon/carillon.toml
  carillon source forget old-cms --redis redis://127.0.0.1:6379")]
pub(super) enum SourceCommand {
    List(List),
    Forget(ForgetSource),
}

/// What `tail` says of a node that sees Redis. `late`: the sources that it calls late.
pub(super) fn sight(late: &Value) -> String {
    let names: Vec<_> =
        late.as_array().into_iter().flatten().filter_map(|source| source["source"].as_str()).collect();
    if names.is_empty() {
        return "the node sees Redis again, and nothing is late".into();
    }
    format!("the node sees Redis, but changes made through {} may be late", names.join(", "))
}

/// Print each source, whether it is late, and why
#[derive(Debug, Args)]
#[command(after_help = "\
A source is a publisher that reports that it is alive. \
It is late when its last report has expired, or its oldest event has waited for more than 10 s.

Example:
  carillon source list --json")]
pub(super) struct List {
    #[command(flatten)]
    place: settings::RedisPlace,
    /// Print one JSON object a line: {"source":"cms","late":false,"until":"…","oldest_ms":0}
    #[arg(long)]
    json: bool,
}

/// Say good-bye for a source that will not report again: editors are no longer told that it is late
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  carillon source forget old-cms")]
pub(super) struct ForgetSource {
    #[command(flatten)]
    place: settings::RedisPlace,
    /// Its name, as in `carillon source list`
    name: String,
}

impl SourceCommand {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let tasks = Tasks::new();
        let result = match self {
            Self::List(list) => list.run(&tasks).await,
            Self::Forget(forget) => forget.run(&tasks).await,
        };
        tasks.end(Duration::from_secs(1)).await;
        result.map(|()| ExitCode::SUCCESS)
    }
}

impl settings::RedisPlace {
    async fn open(&self, tasks: &Tasks) -> anyhow::Result<Publisher> {
        let config = self.load("sources are kept in Redis")?;
        Ok(Publisher::open(wiring::bus(&config, &wiring::areas(&config)?), tasks).await?)
    }
}

impl List {
    async fn run(self, tasks: &Tasks) -> anyhow::Result<()> {
        let Sources { now, mut list } = self.place.open(tasks).await?.sources().await?;
        list.retain(Source::is_present);
        list.sort_by(|one, other| one.name.cmp(&other.name));
        if list.is_empty() && !self.json {
            say("no publisher vouches for itself: docs/wire-your-cms.md says how one does");
        }
        let mut text = String::new();
        for source in &list {
            let late = source.is_late(now);
            // Writing into a string does not fail.
            let _ = if self.json {
                let oldest = if source.since == 0 { 0 } else { now.saturating_sub(source.since) };
                let until = rfc3339(source.until);
                writeln!(
                    text,
                    "{}",
                    json!({"source": source.name, "late": late, "until": until, "oldest_ms": oldest})
                )
            } else {
                let state = if late { "late" } else { "well" };
                writeln!(text, "{}  {state}: {}", source.name, source.in_words(now))
            };
        }
        print(&text)
    }
}

impl ForgetSource {
    async fn run(self, tasks: &Tasks) -> anyhow::Result<()> {
        if !Source::is_name(&self.name) {
            let text = format!(
                "{:?} is not the name of a source: 1 to 64 letters, digits and . _ : / @ -",
                self.name
            );
            return Err(Usage(text).into());
        }
        let publisher = self.place.open(tasks).await?;
        let known = publisher.sources().await?.list;
        if !known.iter().any(|source| source.is_present() && source.name == self.name) {
            say(format_args!("Redis has no source {:?}; nodes that remember it forget it now", self.name));
        }
        publisher.forget_source(&self.name).await?;
        Ok(())
    }
}
