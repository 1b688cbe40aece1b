//! What clients hear, held against what may be said: each message as it comes.

use std::time::UNIX_EPOCH;

use carillon::{
    protocol::{EntryId, Position},
    session::{Cursor, PollAnswer},
};
use serde_json::Value;

use crate::{
    audit::topics_of,
    plan::Way,
    world::{EPOCH, World},
};

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn positions(value: &Value) -> Vec<(String, Position)> {
    let object = value["positions"].as_object();
    let read = |(topic, position): (&String, &Value)| Some((topic.clone(), position.as_str()?.parse().ok()?));
    object.map(|all| all.iter().filter_map(read).collect()).unwrap_or_default()
}

impl World {
    /// A client comes (back): what it is in step with, and what it has heard, begins anew; a poll goes on.
    pub(crate) fn audit_begin(&mut self, client: usize) {
        self.excuse_unmarked(client);
        let me = &mut self.clients[client];
        let wanted: Vec<String> = me.subjects.iter().flat_map(|subject| topics_of(subject)).collect();
        me.positions.retain(|topic, _| wanted.contains(topic));
        let view = &mut self.audit.views[client];
        view.heard.clear();
        view.live.clear();
        view.changing.clear();
        view.by_area.clear();
        view.follows.retain(|topic, _| wanted.contains(topic));
        view.brought = me.at;
        if let Some(cursor) = me.cursor.as_deref().filter(|_| me.way != Way::Socket).and_then(Cursor::read) {
            view.brought = cursor.at;
            // What is followed anew goes on as well, where the cursor knows it: from before, or by the whole area.
            for (topic, position) in cursor.resume().positions {
                if let (true, Ok(position)) = (wanted.contains(&topic), position.parse()) {
                    me.positions.entry(topic).or_insert(position);
                }
            }
        }
        view.started.clear();
        if me.way == Way::Poll {
            view.started.extend(me.positions.keys().cloned());
        }
        let (node, life) = (me.node, me.life);
        self.note(|world| {
            let me = &world.clients[client];
            let at = me.cursor.as_deref().and_then(Cursor::read).map_or(me.at, |cursor| cursor.at);
            format!(
                "   client {client} ({:?}, connection {life}) comes to node {node} with {:?} at {at}",
                me.way, me.positions
            )
        });
    }

    /// A client has asked to follow more, or less.
    pub(crate) fn audit_change(&mut self, client: usize, subject: &str, _more: bool) {
        let mut names = topics_of(subject);
        names.push(subject.to_owned());
        self.audit.views[client].changing.extend(names);
    }

    /// A message.
    pub(crate) fn hear(&mut self, client: usize, json: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(json) else {
            return self
                .violate("not JSON", format!("client {client} got {}", String::from_utf8_lossy(json)));
        };
        self.note(|_| format!("   client {client} hears {message}"));
        if let Some(at) = message["at"].as_u64() {
            self.clients[client].at = at;
        }
        let kind = text(&message, "type").to_owned();
        self.report.count("message", &kind);
        self.hear_as_person(client, &kind, &message);
        match kind.as_str() {
            "welcome" => self.welcomed(client, &message),
            "subscribed" => self.subscribed(client, &message),
            "event" => self.hear_event(client, &message),
            "resync" => self.hear_resync(client, &message),
            "unsubscribed" => self.unsubscribed(client, &message),
            "status" => self.hear_status(client, &message),
            "closing" => {
                // Not `reconnect_after_ms`, which is drawn by lot: a seed must always lead to the same.
                let later = 1 + self.pick(2_000);
                let nodes = self.nodes.len();
                let next = (self.clients[client].node + 1) % nodes;
                self.report.count("closing", &message["code"].to_string());
                self.hang_up(client, 0, later, Some(next));
            }
            "error" if self.has_people() && message["code"] == "bad-token" => {}
            "error" => self.violate("error", format!("client {client} got {message}")),
            _ => {}
        }
    }

    fn done_waiting(&mut self, client: usize, kind: &str) {
        let waits = &mut self.clients[client].waits;
        match waits.front() {
            Some(wait) if wait.kind == kind => drop(waits.pop_front()),
            other => {
                let text = format!("client {client} got {kind} and waits for {other:?}");
                self.violate("answers out of order", text);
            }
        }
        if self.clients[client].waits.is_empty() {
            self.audit.views[client].changing.clear();
        }
    }

    fn welcomed(&mut self, client: usize, message: &Value) {
        self.done_waiting(client, "welcome");
        let live = message["live"] == true;
        let me = &mut self.clients[client];
        (me.welcomed, me.live) = (true, live);
        for (topic, position) in positions(message) {
            if let Some(brought) =
                self.clients[client].positions.get(&topic).filter(|brought| **brought != position)
            {
                let text =
                    format!("client {client} brought {brought} for {topic} and is welcomed at {position}");
                return self.violate("moved", text);
            }
            let comes_back = self.clients[client].positions.contains_key(&topic);
            self.start_at(client, &topic, position, !comes_back);
        }
        if !live {
            // Redis is away: what it brought is resumed as usual when Redis is back.
            let brought: Vec<String> = self.clients[client].positions.keys().cloned().collect();
            self.audit.views[client].started.extend(brought);
        }
        self.start_areas(client, |_| true);
    }

    fn subscribed(&mut self, client: usize, message: &Value) {
        let before = self.audit.views[client].changing.clone();
        self.done_waiting(client, "subscribed");
        for (topic, position) in positions(message) {
            let view = &self.audit.views[client];
            if view.started.contains(&topic) {
                // Repeated for what is followed already: a client may keep it, so it must have had all that is before it.
                let known = self.clients[client].positions.get(&topic);
                if known.is_some_and(|known| *known != position) {
                    let text = format!(
                        "client {client} is at {known:?} in {topic}, and `subscribed` says {position}"
                    );
                    return self.violate("claims", text);
                }
                continue;
            }
            self.start_at(client, &topic, position, true);
        }
        self.start_areas(client, |area| before.contains(area));
    }

    /// Whole areas have no positions: they are followed from the answer on.
    fn start_areas(&mut self, client: usize, is_new: impl Fn(&String) -> bool) {
        let areas = self.clients[client].subjects.iter().filter(|s| s.ends_with(":*") && is_new(s)).cloned();
        for area in areas.collect::<Vec<_>>() {
            let now = self.now;
            self.audit.views[client].follows.entry(area.clone()).or_insert(now);
            self.audit.views[client].told.insert(area, now);
        }
    }

    fn start_at(&mut self, client: usize, topic: &str, position: Position, anew: bool) {
        let now = self.now;
        self.clients[client].positions.insert(topic.to_owned(), position);
        let view = &mut self.audit.views[client];
        view.started.insert(topic.to_owned());
        if anew {
            view.follows.entry(topic.to_owned()).or_insert(now);
            view.told.insert(topic.to_owned(), now);
        }
    }

    fn unsubscribed(&mut self, client: usize, message: &Value) {
        if self.clients[client].way != Way::Poll {
            self.done_waiting(client, "unsubscribed");
        }
        for topic in message["topics"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.clients[client].positions.remove(topic);
            let view = &mut self.audit.views[client];
            view.started.remove(topic);
            view.follows.remove(topic);
            view.by_area
                .retain(|of, _| !topic.ends_with(":*") || !of.starts_with(topic.trim_end_matches('*')));
            view.left = self.now;
        }
    }

    fn hear_event(&mut self, client: usize, message: &Value) {
        let topic = text(message, "topic").to_owned();
        let number = message["event"]["data"]["n"].as_u64().unwrap_or(0);
        let Some(position) = message["position"].as_str() else {
            if let Some(live) = self.audit.live.get_mut(&number) {
                live.heard = true;
            }
            let at = message["at"].as_u64().unwrap_or(0);
            self.clients[client].lives.push((self.now, at));
            // Two nodes may each deliver it to polls that hop between them: without a position nobody can tell.
            let view = &mut self.audit.views[client];
            view.numbers.insert(number);
            if !view.live.insert(number) {
                self.violate(
                    "live event twice",
                    format!("client {client} got live event {number} of {topic} twice"),
                );
            }
            return;
        };
        let Ok(position) = position.parse::<Position>() else {
            return self.violate("unreadable position", format!("client {client}: {position}"));
        };
        let content = self.audit.contents.get(&(position.lineage.clone(), topic.clone(), position.id));
        if content != Some(&Some(number)) {
            let text = format!(
                "client {client} got number {number} at {position} of {topic}, where Redis has {content:?}"
            );
            return self.violate("wrong content", text);
        }
        let view = &mut self.audit.views[client];
        view.numbers.insert(number);
        if !view.heard.insert((topic.clone(), number)) {
            return self.violate("twice", format!("client {client} got {topic} {position} twice"));
        }
        let area = format!("{}:*", topic.split(':').next().unwrap_or_default());
        let by_area = topic.contains(':') && self.clients[client].subjects.contains(&area);
        if view.started.contains(&topic) {
            view.by_area.remove(&topic);
            self.next_event(client, &topic, position, by_area);
        } else if by_area {
            self.next_event_of_area(client, &topic, &area, &position);
        } else if !view.changing.contains(&topic) && !view.changing.contains(&area) {
            let text =
                format!("client {client} got {topic} {position}, and was not told where the topic starts");
            self.violate("event without a start", text);
        }
    }

    /// An event of a topic that is followed by its whole area only: what is missing before it must have been told.
    fn next_event_of_area(&mut self, client: usize, topic: &str, area: &str, position: &Position) {
        let view = &mut self.audit.views[client];
        let Some(known) = view.by_area.insert(topic.to_owned(), position.clone()) else { return };
        if known.lineage != position.lineage || known.id.epoch != position.id.epoch {
            return;
        }
        let between =
            |id: EntryId| id.epoch == known.id.epoch && id.seq > known.id.seq && id.seq < position.id.seq;
        // Whoever is told to refetch does so then: that covers all that was published before.
        let told = view.told.get(area).copied().unwrap_or(0);
        let records = self.audit.records.get(topic).into_iter().flatten();
        let missing = records.filter(|record| between(record.id) && record.at > told).find(|record| {
            record.number.is_some_and(|n| !view.numbers.contains(&n) && !view.lost.contains(&n))
        });
        if let Some(missing) = missing {
            let text = format!(
                "client {client} follows all of {topic}'s area, was at {known} and got {position} before it was told of {}",
                missing.id
            );
            self.violate("hole", text);
        }
    }

    /// An event of a topic that is in step: it must be the next one.
    fn next_event(&mut self, client: usize, topic: &str, position: Position, by_area: bool) {
        let Some(known) = self.clients[client].positions.get(topic).cloned() else { return };
        let problem = if known.lineage != position.lineage || known.id.epoch != position.id.epoch {
            "another log"
        } else if position.id.seq <= known.id.seq {
            // It came by the whole area before it was followed by key.
            if by_area {
                return;
            }
            "twice or out of order"
        } else if position.id.seq > known.id.seq + 1 {
            "hole"
        } else {
            self.clients[client].positions.insert(topic.to_owned(), position);
            return;
        };
        let text = format!("client {client} is at {known} in {topic} and got {position}");
        self.violate(problem, text);
    }

    fn hear_resync(&mut self, client: usize, message: &Value) {
        let reason = text(message, "reason").to_owned();
        self.report.count("resync", &reason);
        let starts = positions(message);
        for topic in message["topics"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.within_budget(client, topic, &reason);
            let start = starts.iter().find(|(of, _)| of == topic);
            match start {
                Some((_, position)) => self.start_at(client, topic, position.clone(), true),
                None if topic.ends_with(":*") => {
                    let (now, area) = (self.now, topic.trim_end_matches('*'));
                    self.audit.views[client].told.insert(topic.to_owned(), now);
                    self.audit.views[client].by_area.retain(|of, _| !of.starts_with(area));
                }
                None => {
                    let text = format!("client {client} was told to refetch {topic} and not where it starts");
                    self.violate("resync without a start", text);
                }
            }
        }
    }

    fn hear_status(&mut self, client: usize, message: &Value) {
        self.clients[client].live = message["live"] == true;
        if message["live"] != true || self.clients[client].way == Way::Poll {
            return;
        }
        let Some(up) = self.said_over(client, text(message, "since")) else { return };
        let subjects: Vec<String> = self.clients[client].subjects.iter().cloned().collect();
        for name in subjects.iter().flat_map(|subject| topics_of(subject)) {
            let view = &self.audit.views[client];
            if view.changing.contains(&name) || self.redis.denied.contains(&crate::deeds::topic(&name)) {
                continue;
            }
            if !view.started.contains(&name) {
                let text = format!("client {client} was told live:true and not where {name} starts");
                return self.violate("live too early", text);
            }
            let Some(position) = self.clients[client].positions.get(&name) else { continue };
            let last =
                self.audit.records.get(&name).and_then(|r| r.iter().rev().find(|record| record.at < up));
            let behind = |id: EntryId| id.epoch == position.id.epoch && id.seq > position.id.seq;
            if position.lineage == self.redis.lineage && last.is_some_and(|last| behind(last.id)) {
                let text = format!(
                    "client {client} was told live:true at {position} in {name}, link up since {up} ms"
                );
                return self.violate("live too early", text);
            }
        }
    }

    /// When the link came up of which a node says since when it has been live over it.
    fn said_over(&self, client: usize, since: &str) -> Option<u64> {
        let since = humantime::parse_rfc3339(since).ok()?.duration_since(UNIX_EPOCH).ok()?;
        let since = (since.as_millis() as u64).checked_sub(EPOCH)?;
        let node = &self.nodes[self.clients[client].node];
        // Who stood still may say something before it takes the news of its link.
        node.links().filter(|up| node.heard.get(up).is_some_and(|heard| *heard < since)).max()
    }

    /// The answer to a poll has come: what was waited for.
    pub(crate) fn audit_polled(&mut self, client: usize, answer: &PollAnswer) {
        if self.people.all.get_mut(client).and_then(|person| person.refused.take()).is_some() {
            self.clients[client].cut_until = self.now;
        }
        if self.clients[client].waits.front().is_some_and(|wait| wait.kind == "welcome")
            && !answer.messages.iter().any(|m| m.starts_with(br#"{"type":"welcome""#))
        {
            self.clients[client].waits.clear();
        }
    }

    /// The node's record of where the client stands must be what it was told, no more and no less.
    pub(crate) fn audit_cursor(&mut self, client: usize) {
        let Some(cursor) = self.clients[client].cursor.as_deref().and_then(Cursor::read) else {
            return self.violate("cursor", format!("client {client} got an unreadable cursor"));
        };
        for (topic, position) in cursor.resume().positions {
            let known = self.clients[client].positions.get(&topic).map(ToString::to_string);
            if known.as_ref() != Some(&position) && self.audit.views[client].started.contains(&topic) {
                let text =
                    format!("client {client} was told {known:?} of {topic}, and its cursor says {position}");
                return self.violate("cursor", text);
            }
        }
    }
}
