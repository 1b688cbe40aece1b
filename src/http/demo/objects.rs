//! The objects of the simulated CMS, as `demo/API.md` (3) writes them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::protocol::time;

/// How long ago the newest of the seed's times is made to be, ms.
const NEWEST: u64 = 40 * 60 * 1000;

/// A person who edits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Editor {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) initials: String,
    pub(super) role: String,
    pub(super) hue: u16,
}

/// A project: what editors gather changes in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Project {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) status: String,
    pub(super) modified: String,
    pub(super) modified_by: String,
}

/// One change in a project.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ProjectItem {
    pub(super) id: String,
    pub(super) project: u64,
    pub(super) content: String,
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) language: String,
    pub(super) status: String,
    pub(super) version: u32,
    pub(super) modified: String,
    pub(super) modified_by: String,
}

/// What somebody said, or what the CMS noted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Comment {
    pub(super) id: String,
    pub(super) project: u64,
    pub(super) kind: String,
    pub(super) item: Option<String>,
    pub(super) author: String,
    pub(super) text: String,
    pub(super) created: String,
}

/// What an item's content holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ItemContent {
    pub(super) id: String,
    pub(super) project: u64,
    pub(super) item: String,
    pub(super) title: String,
    pub(super) teaser: String,
    pub(super) language: String,
    pub(super) version: u32,
    pub(super) published_version: Option<u32>,
    pub(super) modified: String,
    pub(super) modified_by: String,
}

/// What a notification leads to; nothing where it is only a note.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct About {
    pub(super) project: Option<u64>,
    pub(super) item: Option<String>,
    pub(super) comment: Option<String>,
}

/// A line in an editor's bell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Notification {
    pub(super) id: String,
    pub(super) to: String,
    pub(super) from: String,
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) about: About,
    pub(super) read: bool,
    pub(super) created: String,
}

/// Moves the seed's times to shortly before `now` (ms), with their distances kept: a demo is not years old.
pub(super) fn freshen(seed: &mut Value, now: u64) {
    let lists = seed.as_object_mut().into_iter().flat_map(|lists| lists.values_mut());
    let objects = lists.filter_map(Value::as_array_mut).flatten().filter_map(Value::as_object_mut);
    let fields = objects.flat_map(|object| object.iter_mut());
    let times = fields.filter(|(name, _)| matches!(name.as_str(), "created" | "modified"));
    let mut times: Vec<(u64, &mut Value)> =
        times.filter_map(|(_, value)| Some((time::from_rfc3339(value.as_str()?)?, value))).collect();
    let newest = times.iter().map(|(ms, _)| *ms).max().unwrap_or(0);
    for (ms, value) in &mut times {
        **value = time::rfc3339(now.saturating_sub(NEWEST + newest - *ms)).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_as_old_as_it_was_when_it_was_new() {
        let mut seed = serde_json::json!({ "items": [
            { "name": "a", "modified": "2026-11-20T10:00:00.000Z" }, { "created": "2026-11-20T09:00:00.000Z" },
        ] });
        freshen(&mut seed, time::from_rfc3339("2030-01-01T12:40:00Z").unwrap());
        assert_eq!(seed["items"][0]["modified"], "2030-01-01T12:00:00.000Z");
        assert_eq!(seed["items"][1]["created"], "2030-01-01T11:00:00.000Z");
        assert_eq!(seed["items"][0]["name"], "a");
    }
}
