//! The objects of the simulated CMS, as `demo/API.md` (3) writes them.

use serde::{Deserialize, Serialize};

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
pub(super) struct Item {
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
pub(super) struct Content {
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

/// A line in an editor's bell.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Notification {
    pub(super) id: String,
    pub(super) to: String,
    pub(super) from: String,
    pub(super) text: String,
    pub(super) project: Option<u64>,
    pub(super) read: bool,
    pub(super) created: String,
}
