//! `carillon forget`: erases logs in Redis, for people who must delete what was published.
//!
//! Followers are told by the function itself, on every node.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use anyhow::bail;
use carillon::{
    app::wiring,
    bus::{BusError, redis::Publisher},
    protocol::{Areas, Topic},
    shutdown::Tasks,
};
use clap::Args;
use serde_json::json;

use super::{Usage, print, say, settings};

/// Erase the logs of topics, with the ids of their events, and have their followers refetch
#[derive(Debug, Args)]
#[command(after_help = "\
Redis forgets the events of these topics at once, and pages that follow them are told to refetch. \
Delete the content in the CMS first: what a publisher sends again is recorded again. \
The Redis user needs a publisher's rights for these areas (carillon redis-function --acl). \
Redis' own files keep copies until BGREWRITEAOF or BGSAVE has written them anew, backups until they are deleted.

Examples:
  carillon forget comments:42 --config /etc/carillon/carillon.toml
  carillon forget notifications:anna comments:42 --redis redis://127.0.0.1:6379 --json")]
pub(super) struct Forget {
    #[command(flatten)]
    place: settings::RedisPlace,
    /// The topics: area or area:key
    #[arg(required = true)]
    topics: Vec<String>,
    /// Print one JSON object a line: {"topic":"comments:42","found":true,"events":12}
    #[arg(long)]
    json: bool,
}

impl Forget {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.place.load("logs are kept in Redis")?;
        let areas = wiring::areas(&config)?;
        let topics = self.checked(&areas)?;
        let tasks = Tasks::new();
        let publisher = Publisher::open(wiring::bus(&config, &areas), &tasks).await?;
        let result = self.erase(&publisher, &topics).await;
        tasks.end(Duration::from_secs(1)).await;
        result
    }

    /// The topics. With a bad one among them nothing is erased, and all bad ones are said.
    fn checked(&self, areas: &Areas) -> anyhow::Result<Vec<Topic>> {
        let (mut topics, mut problems) = (Vec::new(), Vec::new());
        for text in &self.topics {
            match Topic::parse_named(text, areas) {
                Ok(topic) if topics.contains(&topic) => {}
                Ok(topic) => topics.push(topic),
                Err(problem) => problems.push(problem.to_string()),
            }
        }
        if problems.is_empty() {
            return Ok(topics);
        }
        Err(Usage(format!("{}; nothing was erased", problems.join("; "))).into())
    }

    async fn erase(&self, publisher: &Publisher, topics: &[Topic]) -> anyhow::Result<ExitCode> {
        let mut refused = 0;
        for (at, topic) in topics.iter().enumerate() {
            match publisher.forget(topic).await {
                Ok(events) => print(&self.line(topic, events))?,
                Err(error) => {
                    say(format_args!("{topic} was not erased: {error}"));
                    refused += 1;
                    if matches!(error, BusError::Away(_)) {
                        refused = topics.len() - at;
                        break;
                    }
                }
            }
        }
        if refused > 0 {
            let all = topics.len();
            bail!("{refused} of {all} topics were not erased: mend what the lines above say and try again");
        }
        Ok(ExitCode::SUCCESS)
    }

    /// What became of a topic; `events`: how many it had, `None` where there was no log.
    fn line(&self, topic: &Topic, events: Option<u64>) -> String {
        let mut line = String::new();
        // Writing into a string does not fail.
        let _ = match (self.json, events) {
            (true, _) => {
                let (found, events) = (events.is_some(), events.unwrap_or(0));
                writeln!(line, "{}", json!({"topic": topic.as_str(), "found": found, "events": events}))
            }
            (false, None) => writeln!(line, "{topic}: there is nothing to erase"),
            (false, Some(1)) => writeln!(line, "{topic}: 1 event erased"),
            (false, Some(events)) => writeln!(line, "{topic}: {events} events erased"),
        };
        line
    }
}
