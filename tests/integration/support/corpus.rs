//! Good and bad events and topics, with the verdict that every door must give (`tests/corpus/*.jsonl`).

use base64::{Engine as _, prelude::BASE64_STANDARD};

/// One line of a corpus.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// Events: `good`, or what is wrong: `size`, `utf8`, `json`, `type`, `id`, `source`. Topics: `good` or `bad`.
    pub(crate) verdict: String,
    /// In words.
    pub(crate) what: String,
    /// The event or the topic.
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn events() -> Vec<Case> {
    read(include_str!("../../corpus/events.jsonl"), "event")
}

pub(crate) fn topics() -> Vec<Case> {
    read(include_str!("../../corpus/topics.jsonl"), "topic")
}

fn read(lines: &str, name: &str) -> Vec<Case> {
    let case = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of the corpus");
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let encoded = || BASE64_STANDARD.decode(text("base64").expect("a case")).expect("base64");
        let bytes = text(name).map_or_else(encoded, String::into_bytes);
        Case { verdict: text("verdict").expect("a verdict"), what: text("what").expect("words"), bytes }
    };
    lines.lines().map(case).collect()
}
