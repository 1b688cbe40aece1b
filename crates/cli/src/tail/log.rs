//! What `carillon tail` has seen: what it prints, what it says about that, and what it brings along when it comes back.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Value, json};

use crate::{is_read, say, source};

/// What is remembered between connections, and how much was printed.
#[derive(Default)]
pub(super) struct Log {
    positions: BTreeMap<String, Value>,
    at: Option<u64>,
    started: bool,
    printed: u64,
    count: Option<u64>,
    /// Topics that were asked for.
    asked: Vec<String>,
    /// What is wrong with the key of some of them, as far as that can be seen from here.
    misspelt: BTreeMap<String, String>,
}

impl Log {
    /// Nothing yet of these topics; ends after `count` events.
    pub(super) fn new(count: Option<u64>, asked: Vec<String>, misspelt: BTreeMap<String, String>) -> Self {
        Self { count, asked, misspelt, ..Self::default() }
    }

    /// Takes a message of the node in. `Ok(true)`: enough was printed.
    pub(super) fn take(&mut self, text: &str) -> anyhow::Result<bool> {
        let message: Value =
            serde_json::from_str(text).context("the node sent something that is not JSON")?;
        if let Some(at) = message["at"].as_u64() {
            self.at = Some(at);
        }
        if let Some(positions) = message["positions"].as_object() {
            self.positions
                .extend(positions.iter().map(|(topic, position)| (topic.clone(), position.clone())));
        }
        match message["type"].as_str().unwrap_or_default() {
            "event" => {
                if let (Some(topic), Some(_)) = (message["topic"].as_str(), message["position"].as_str()) {
                    self.positions.insert(topic.to_owned(), message["position"].clone());
                }
                self.printed += 1;
                return Ok(!is_passed_on(text)? || self.is_enough());
            }
            "resync" => return Ok(!is_passed_on(text)?),
            "welcome" => {
                self.complain(&message["refused"])?;
                self.greet(&message["refused"]);
                self.started = true;
            }
            "status" if message["live"] == false => say("the node has lost sight of Redis"),
            "status" => say(source::sight(&message["late"])),
            _ => {}
        }
        Ok(self.is_enough())
    }

    fn is_enough(&self) -> bool {
        self.count.is_some_and(|count| self.printed >= count)
    }

    /// Says what is followed from now on.
    fn greet(&self, refused: &Value) {
        let is_refused = |topic: &&String| {
            refused.as_array().into_iter().flatten().any(|refused| refused["topic"] == topic.as_str())
        };
        let followed: Vec<_> =
            self.asked.iter().filter(|topic| !is_refused(topic)).map(String::as_str).collect();
        let again = if self.started { " again" } else { "" };
        say(format_args!("following{again} {}", followed.join(", ")));
    }

    /// Says what is refused. An error where that is everything.
    fn complain(&self, refused: &Value) -> anyhow::Result<()> {
        let each = |refused: &Value| {
            let text = |name: &str| refused[name].as_str().unwrap_or_default().to_owned();
            let (topic, code) = (text("topic"), text("code"));
            let area = topic.split(':').next().unwrap_or_default();
            match (code.as_str(), self.misspelt.get(&topic)) {
                ("bad-topic", Some(why)) => why.clone(),
                ("bad-topic", None) => {
                    format!("{topic} (there is no area {area} in its areas.names, or the key is misspelt)")
                }
                ("forbidden", _) => format!("{topic} (this token does not allow it)"),
                _ => format!("{topic} ({code})"),
            }
        };
        let refused: Vec<_> = refused.as_array().into_iter().flatten().map(each).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let sentence = format!("the node refuses {}", refused.join(", "));
        if refused.len() >= self.asked.len().max(1) {
            return Err(Final(sentence).into());
        }
        say(sentence);
        Ok(())
    }

    pub(super) fn resume(&self) -> Option<Value> {
        self.started.then(|| json!({ "at": self.at, "positions": self.positions }))
    }
}

/// Prints a message of the node on a line of its own. `false`: nobody reads any more.
fn is_passed_on(json: &str) -> anyhow::Result<bool> {
    // Between the words of JSON the end of a line is as good as a space, and inside of them there is none.
    is_read(&format!("{}\n", json.replace(['\r', '\n'], " ")))
}

/// Trying again would not help.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Final(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_position_is_brought_back() {
        let mut log = Log::default();
        assert_eq!(log.resume(), None);
        log.take(
            r#"{"type":"welcome","at":5,"positions":{"comments:1":"a.1-1","comments":"a.1-0"},"refused":[]}"#,
        )
        .unwrap();
        log.take(r#"{"type":"event","at":6,"topic":"comments:1","position":"a.1-2","event":{"type":"a.b"}}"#)
            .unwrap();
        log.take(r#"{"type":"resync","at":7,"topics":["comments"],"reason":"gap","positions":{"comments":"a.1-9"}}"#).unwrap();
        let positions = json!({ "comments:1": "a.1-2", "comments": "a.1-9" });
        assert_eq!(log.resume(), Some(json!({ "at": 7, "positions": positions })));
    }
}
