//! The simulated CMS of the demo: projects, items, comments, contents and notifications in memory.
//!
//! What `demo/API.md` says, without HTTP: a write changes the state and returns what it changed and the events to publish
//! afterwards, as a real CMS would after its commit.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::objects::{self, About, Comment, Editor, ItemContent, Notification, Project, ProjectItem};
use crate::protocol::{Problem, ProblemCode, time};

/// The longest text, characters.
const TEXT: usize = 2_000;
/// Comments that are kept.
const COMMENTS: usize = 200;
/// Notifications that are kept for one editor.
const NOTIFICATIONS: usize = 100;

/// An event that a write wants published.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Poke {
    pub(super) topic: String,
    pub(super) kind: &'static str,
    pub(super) data: Value,
}

/// What a write has changed, under its name, and what to publish.
#[derive(Debug)]
pub(super) struct DemoChange {
    pub(super) name: &'static str,
    pub(super) value: Value,
    pub(super) pokes: Vec<Poke>,
}

/// The body of every write; which fields count depends on the request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Write {
    pub(super) editor: String,
    pub(super) origin: Option<String>,
    text: Option<String>,
    item: Option<String>,
    status: Option<String>,
    title: Option<String>,
    teaser: Option<String>,
    to: Option<String>,
    project: Option<u64>,
    id: Option<String>,
    all: bool,
}

/// The whole state.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DemoCms {
    pub(super) editors: Vec<Editor>,
    projects: Vec<Project>,
    items: Vec<ProjectItem>,
    comments: Vec<Comment>,
    contents: Vec<ItemContent>,
    notifications: Vec<Notification>,
    #[serde(skip)]
    made: u64,
}

impl DemoCms {
    /// The state that the demo starts with.
    pub(super) fn seed() -> Result<Self, serde_json::Error> {
        let mut seed = serde_json::from_str(include_str!("../../../demo/seed.json"))?;
        objects::freshen(&mut seed, time::now_ms());
        let mut cms: Self = serde_json::from_value(seed)?;
        let ids = cms.comments.iter().map(|c| &c.id).chain(cms.notifications.iter().map(|n| &n.id));
        cms.made = ids.filter_map(|id| id.get(1..)?.parse().ok()).max().unwrap_or(0);
        Ok(cms)
    }

    pub(super) fn projects(&self) -> Value {
        json!({ "projects": self.projects.iter().map(|p| self.counted(p)).collect::<Vec<_>>() })
    }

    fn counted(&self, project: &Project) -> Value {
        json!({
            "id": project.id, "name": project.name, "status": project.status,
            "items": self.items.iter().filter(|i| i.project == project.id).count(),
            "comments": self.comments.iter().filter(|c| c.project == project.id).count(),
            "modified": project.modified, "modified_by": project.modified_by,
        })
    }

    pub(super) fn items(&self, project: u64) -> Result<Value, Problem> {
        let items: Vec<&ProjectItem> = self.items.iter().filter(|item| item.project == project).collect();
        Ok(json!({ "project": self.counted(self.project(project)?), "items": items }))
    }

    pub(super) fn comments(&self, project: u64) -> Result<Value, Problem> {
        self.project(project)?;
        let comments: Vec<&Comment> = self.comments.iter().rev().filter(|c| c.project == project).collect();
        Ok(json!({ "project": project, "comments": comments }))
    }

    pub(super) fn content(&self, id: &str) -> Result<Value, Problem> {
        let content = self.contents.iter().find(|content| content.id == id);
        content.map(|content| json!(content)).ok_or_else(|| missing("content", id))
    }

    pub(super) fn notifications(&self, editor: &str) -> Result<Value, Problem> {
        self.editor(editor)?;
        let own: Vec<&Notification> = self.notifications.iter().rev().filter(|n| n.to == editor).collect();
        Ok(json!({ "unread": self.unread(editor), "notifications": own }))
    }

    pub(super) fn state(&self) -> Value {
        let mut state = json!(self);
        state["projects"] = self.projects()["projects"].take();
        state
    }

    pub(super) fn comment(&mut self, project: u64, write: &Write) -> Result<DemoChange, Problem> {
        let author = self.editor(&write.editor)?.clone();
        let text = text(write.text.as_deref(), "text")?;
        if let Some(item) = &write.item {
            self.item_at(project, item)?;
        }
        self.touch(project, &write.editor)?;
        let comment = self.add_comment(project, "comment", write.item.clone(), &write.editor, text.clone());
        let mut pokes = vec![Poke {
            topic: format!("comments:{project}"),
            kind: "comment.created",
            data: json!({ "project": project, "comment": comment.id, "item": comment.item }),
        }];
        let cut: String = text.chars().take(80).collect();
        let mentioned: Vec<String> = self.editors.iter().map(|e| e.id.clone()).collect();
        for to in mentioned.into_iter().filter(|id| *id != author.id && mentions(&text, id)) {
            let text = format!("{} mentioned you: “{cut}”", author.name);
            let about =
                About { project: Some(project), item: write.item.clone(), comment: Some(comment.id.clone()) };
            pokes.push(self.add_notification(&to, &author.id, text, about).1);
        }
        Ok(DemoChange { name: "comment", value: json!(comment), pokes })
    }

    pub(super) fn move_item(&mut self, project: u64, id: &str, write: &Write) -> Result<DemoChange, Problem> {
        let status = write.status.as_deref().unwrap_or_default();
        let label = label(status)?;
        let item = self.set_item(project, id, status, &write.editor)?;
        let text = format!("moved “{}” to {label}", item.name);
        self.add_comment(project, "activity", Some(item.id.clone()), &write.editor, text);
        let mut pokes = self.item_pokes(&item);
        if status == "published"
            && let Some(content) = self.contents.iter_mut().find(|content| content.id == item.content)
        {
            content.published_version = Some(item.version);
            pokes.push(content_poke(&item, "content.published"));
        }
        Ok(DemoChange { name: "item", value: json!(item), pokes })
    }

    pub(super) fn approve(&mut self, project: u64, id: &str, write: &Write) -> Result<DemoChange, Problem> {
        let editor = self.editor(&write.editor)?.clone();
        let before = self.items[self.item_at(project, id)?].modified_by.clone();
        let item = self.set_item(project, id, "approved", &write.editor)?;
        self.add_comment(
            project,
            "activity",
            Some(item.id.clone()),
            &write.editor,
            format!("approved “{}”", item.name),
        );
        let mut pokes = self.item_pokes(&item);
        if before != editor.id {
            let text = format!("{} approved “{}”.", editor.name, item.name);
            let about = About { project: Some(project), item: Some(item.id.clone()), comment: None };
            pokes.push(self.add_notification(&before, &editor.id, text, about).1);
        }
        Ok(DemoChange { name: "item", value: json!(item), pokes })
    }

    pub(super) fn set_status(&mut self, project: u64, write: &Write) -> Result<DemoChange, Problem> {
        let status = write.status.as_deref().unwrap_or_default();
        if !["active", "on_hold", "done"].contains(&status) {
            return Err(bad("\"status\" is active, on_hold or done."));
        }
        self.editor(&write.editor)?;
        self.touch(project, &write.editor)?;
        let at =
            self.projects.iter().position(|p| p.id == project).ok_or_else(|| missing("project", project))?;
        self.projects[at].status = status.into();
        let data = json!({ "project": project, "status": status });
        let pokes = vec![Poke { topic: "projects".into(), kind: "project.status", data }];
        Ok(DemoChange { name: "project", value: self.counted(&self.projects[at]), pokes })
    }

    pub(super) fn save(&mut self, id: &str, write: &Write) -> Result<DemoChange, Problem> {
        self.editor(&write.editor)?;
        let at = self.contents.iter().position(|c| c.id == id).ok_or_else(|| missing("content", id))?;
        let title = write.title.as_deref().map(|title| text(Some(title), "title")).transpose()?;
        let teaser = write.teaser.as_deref().map(|teaser| text(Some(teaser), "teaser")).transpose()?;
        if title.is_none() && teaser.is_none() {
            return Err(bad("Send a \"title\" or a \"teaser\"."));
        }
        let content = &mut self.contents[at];
        content.title = title.unwrap_or_else(|| content.title.clone());
        content.teaser = teaser.unwrap_or_else(|| content.teaser.clone());
        content.modified = now();
        content.modified_by.clone_from(&write.editor);
        let content = content.clone();
        let item_at = self.item_at(content.project, &content.item)?;
        self.items[item_at].name.clone_from(&content.title);
        let status = self.items[item_at].status.clone();
        let item = self.set_item(content.project, &content.item, &status, &write.editor)?;
        self.contents[at].version = item.version;
        let saved = content_poke(&item, "content.saved");
        Ok(DemoChange {
            name: "content",
            value: json!(self.contents[at]),
            pokes: vec![saved, saved_poke(&item)],
        })
    }

    pub(super) fn notify(&mut self, write: &Write) -> Result<DemoChange, Problem> {
        self.editor(&write.editor)?;
        let to = self.editor(write.to.as_deref().unwrap_or_default())?.id.clone();
        if let Some(project) = write.project {
            self.project(project)?;
        }
        let text = text(write.text.as_deref(), "text")?;
        let about = About { project: write.project, ..About::default() };
        let (notification, poke) = self.add_notification(&to, &write.editor, text, about);
        Ok(DemoChange { name: "notification", value: json!(notification), pokes: vec![poke] })
    }

    pub(super) fn read(&mut self, write: &Write) -> Result<DemoChange, Problem> {
        let editor = self.editor(&write.editor)?.id.clone();
        let topic = format!("notifications:{editor}");
        if write.all {
            self.notifications.iter_mut().filter(|n| n.to == editor).for_each(|n| n.read = true);
            let poke = Poke { topic, kind: "notification.read_all", data: json!({ "unread": 0 }) };
            return Ok(DemoChange { name: "unread", value: json!(0), pokes: vec![poke] });
        }
        let id = write.id.clone().unwrap_or_default();
        let own = self.notifications.iter_mut().find(|n| n.to == editor && n.id == id);
        own.ok_or_else(|| missing("notification", &id))?.read = true;
        let unread = self.unread(&editor);
        let data = json!({ "notification": id, "unread": unread });
        Ok(DemoChange {
            name: "unread",
            value: json!(unread),
            pokes: vec![Poke { topic, kind: "notification.read", data }],
        })
    }

    pub(super) fn editor(&self, id: &str) -> Result<&Editor, Problem> {
        self.editors.iter().find(|editor| editor.id == id).ok_or_else(|| missing("editor", id))
    }

    fn project(&self, id: u64) -> Result<&Project, Problem> {
        self.projects.iter().find(|project| project.id == id).ok_or_else(|| missing("project", id))
    }

    fn item_at(&self, project: u64, id: &str) -> Result<usize, Problem> {
        self.project(project)?;
        let at = self.items.iter().position(|item| item.project == project && item.id == id);
        at.ok_or_else(|| {
            Problem::new(
                404,
                ProblemCode::NoSuchItem,
                "No such item",
                format!("Project {project} has no item {id}."),
            )
        })
    }

    fn unread(&self, editor: &str) -> usize {
        self.notifications.iter().filter(|n| n.to == editor && !n.read).count()
    }

    fn touch(&mut self, project: u64, editor: &str) -> Result<(), Problem> {
        let project =
            self.projects.iter_mut().find(|p| p.id == project).ok_or_else(|| missing("project", project))?;
        project.modified = now();
        project.modified_by = editor.into();
        Ok(())
    }

    fn set_item(
        &mut self,
        project: u64,
        id: &str,
        status: &str,
        editor: &str,
    ) -> Result<ProjectItem, Problem> {
        self.editor(editor)?;
        let at = self.item_at(project, id)?;
        let item = &mut self.items[at];
        item.status = status.into();
        item.version += 1;
        item.modified = now();
        item.modified_by = editor.into();
        Ok(item.clone())
    }

    fn item_pokes(&self, item: &ProjectItem) -> Vec<Poke> {
        let activity = self.comments.last().map(|comment| comment.id.clone());
        let data = json!({ "project": item.project, "activity": activity, "item": item.id });
        vec![
            saved_poke(item),
            Poke { topic: format!("comments:{}", item.project), kind: "activity.created", data },
        ]
    }

    fn add_comment(
        &mut self,
        project: u64,
        kind: &str,
        item: Option<String>,
        author: &str,
        text: String,
    ) -> Comment {
        self.made += 1;
        let id = format!("c{}", self.made);
        let comment =
            Comment { id, project, kind: kind.into(), item, author: author.into(), text, created: now() };
        self.comments.push(comment.clone());
        if self.comments.len() > COMMENTS {
            self.comments.remove(0);
        }
        comment
    }

    fn add_notification(&mut self, to: &str, from: &str, text: String, about: About) -> (Notification, Poke) {
        self.made += 1;
        let id = format!("n{}", self.made);
        let notification =
            Notification { id, to: to.into(), from: from.into(), text, about, read: false, created: now() };
        self.notifications.push(notification.clone());
        if self.notifications.iter().filter(|n| n.to == to).count() > NOTIFICATIONS
            && let Some(oldest) = self.notifications.iter().position(|n| n.to == to)
        {
            self.notifications.remove(oldest);
        }
        let data = json!({ "notification": notification.id, "unread": self.unread(to) });
        let poke = Poke { topic: format!("notifications:{to}"), kind: "notification.created", data };
        (notification, poke)
    }
}

fn saved_poke(item: &ProjectItem) -> Poke {
    let one = json!({ "id": item.id, "content": item.content, "language": item.language });
    let data = json!({ "project": item.project, "items": [one], "status": item.status });
    Poke { topic: format!("project-items:{}", item.project), kind: "project_item.saved", data }
}

fn content_poke(item: &ProjectItem, kind: &'static str) -> Poke {
    let data = json!({ "project": item.project, "content": item.content, "language": item.language, "version": item.version });
    Poke { topic: format!("content:{}", item.content), kind, data }
}

fn mentions(text: &str, id: &str) -> bool {
    text.split_whitespace().any(|word| {
        word.strip_prefix('@').is_some_and(|name| name.trim_end_matches(|c: char| !c.is_alphanumeric()) == id)
    })
}

fn label(status: &str) -> Result<&'static str, Problem> {
    Ok(match status {
        "draft" => "Draft",
        "in_review" => "In review",
        "approved" => "Approved",
        "published" => "Published",
        _ => return Err(bad("\"status\" is draft, in_review, approved or published.")),
    })
}

fn text(text: Option<&str>, field: &str) -> Result<String, Problem> {
    let text = text.unwrap_or_default().trim();
    if text.is_empty() || text.chars().count() > TEXT {
        return Err(bad(&format!("\"{field}\" must have 1 to {TEXT} characters.")));
    }
    Ok(text.to_owned())
}

fn bad(detail: &str) -> Problem {
    Problem::new(400, ProblemCode::BadRequest, "Bad request", detail)
}

fn missing(what: &'static str, id: impl std::fmt::Display) -> Problem {
    let code = match what {
        "editor" => ProblemCode::NoSuchEditor,
        "project" => ProblemCode::NoSuchProject,
        "content" => ProblemCode::NoSuchContent,
        _ => ProblemCode::NoSuchNotification,
    };
    Problem::new(404, code, format!("No such {what}"), format!("The demo has no {what} {id}."))
}

fn now() -> String {
    time::rfc3339(time::now_ms())
}
