//! Cursors: where a session over SSE or long-poll stands, as one short text that the client brings back.
//!
//! A cursor proves nothing: what it names is only where to go on, and whether its bearer may follow a topic is asked
//! anew each time. So it is not signed, and an unreadable one is like none at all: `resync` (`no-position`).
//!
//! Layout before base64 (URL-safe, no padding): version 1, flags, `at`, lineages (count; length and text each), topics
//! (length and text, index of the lineage, epoch, seq; until the end). Numbers are LEB128. Among the lineages are up to four that no
//! topic refers to, so that earlier releases pass over them: which sources the client knows to be late (`!` and a digest), the
//! live events that it has had lately (`+` and their names), the session that polls go on with (`#` and its name), and which
//! topics were refused (`-` and a digest).

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::varint::{byte, number, piece, put_number, put_piece};
use crate::{
    hub::Frame,
    mutant,
    protocol::{
        EntryId, Late, Lineage, NodeMessage, Passed, Position, Reason, Refused, Resume, Subject,
        message::{Connect, Positions},
    },
};

/// Characters of a cursor.
pub const MAX_LENGTH: usize = 4096;
/// Bytes before base64.
const MAX_BYTES: usize = MAX_LENGTH / 4 * 3;
/// Bytes that are kept free for `at`, the session's name and the lineages of up to 16 masters.
const RESERVED: usize = 320;
/// Bytes of a topic's entry besides its text, at most: two lengths, an index, epoch and seq (while it is below 2^35).
const ENTRY: usize = 14;

const VERSION: u8 = 1;
/// Flag: the client was told that the node does not see Redis.
const AWAY: u8 = 1;
/// Most lineages of positions. With the four others their count must fit into a byte.
const MOST_LINEAGES: u8 = 250;
/// Before the digest of the sources that are late.
const LATE: &str = "!";
/// Before the names of live events.
const PASSED: &str = "+";
/// Before the name of a session.
const SESSION: &str = "#";
/// Before the digest of what was refused.
const REFUSED: &str = "-";
/// Characters of a session's name.
const SESSION_LENGTH: usize = 12;

/// Where a client brings its cursor back, which bounds what it can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorPlace {
    /// In the address: a cursor has at most [`MAX_LENGTH`] characters.
    Query,
    /// In a body: as long as the client's message may be.
    Body,
}

impl CursorPlace {
    /// Bytes of a cursor before base64.
    fn most(self) -> usize {
        match self {
            Self::Query => MAX_BYTES,
            Self::Body => usize::MAX,
        }
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The last proof that the client was told everything, ms of Redis' clock; 0: none.
    pub at: u64,
    /// Whether the client was told that the node does not see Redis.
    pub away: bool,
    /// Which sources the client was told to be late ([`crate::protocol::Late::digest`]).
    pub late: u32,
    /// The name of the session that goes on from poll to poll, by which operators can close it.
    pub session: Option<Box<str>>,
    /// Digest of the topics that the client was told are refused; 0: none.
    pub refused: u32,
    /// Which live events the client has had lately.
    passed: Passed,
    positions: BTreeMap<String, Position>,
}

/// Where a session begins whose transport has no `connect` (SSE, long-poll).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the present end.
    Fresh,
    /// Where a session over another transport left off: like a fresh one it is welcomed.
    Resume(Cursor),
    /// Where its own cursor says.
    GoOn(Cursor),
}

impl Start {
    /// Whether an earlier session goes on; a cursor that says nothing, or cannot be read, begins a new one.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::GoOn(cursor) if *cursor != Cursor::default())
    }

    /// The cursor to begin with, and what the relay resumes from.
    fn split(self, topics: &[String]) -> (Cursor, Option<Resume>) {
        let (mut cursor, counted) = match self {
            Self::Fresh => return (Cursor::default(), None),
            Self::GoOn(cursor) => (cursor, true),
            // Over another transport: a session of its own.
            Self::Resume(cursor) => (Cursor { session: None, refused: 0, ..cursor }, false),
        };
        cursor.keep(topics);
        let mut resume = cursor.resume();
        if !counted {
            // It may have had any of the latest live events: they must not come again, nor with the cursor that it gets.
            resume.passed = None;
            cursor.passed = Passed::unnamed_up_to(cursor.at);
        }
        (cursor, Some(resume))
    }
}

/// What a client of SSE or long-poll asks for: what `connect` says over a WebSocket.
#[derive(Debug, Clone)]
pub struct StreamRequest {
    /// Topics to follow, as they were written.
    pub topics: Vec<String>,
    /// Where the client left off.
    pub start: Start,
    /// Where the client brings its cursor back.
    pub cursor_in: CursorPlace,
}

impl StreamRequest {
    /// The cursor to begin with, and the `connect` that says the same.
    pub(super) fn begin(self) -> (Cursor, Connect) {
        let (cursor, resume) = self.start.split(&self.topics);
        (cursor, Connect { topics: self.topics, resume, ..Connect::default() })
    }
}

impl Cursor {
    /// A cursor from a client's own record of positions, as in `connect`.
    pub fn from_resume(resume: &Resume) -> Self {
        let read = |(topic, position): (&String, &String)| Some((topic.clone(), position.parse().ok()?));
        let positions = resume.positions.iter().filter_map(read).collect();
        Self { at: resume.at.unwrap_or(0), positions, ..Self::default() }
    }

    /// What the relay resumes from.
    pub fn resume(&self) -> Resume {
        let positions = self.positions.iter().map(|(topic, position)| (topic.clone(), position.to_string()));
        Resume {
            at: (self.at > 0).then_some(self.at),
            positions: positions.collect(),
            away: self.away,
            passed: Some(self.passed.clone()),
        }
    }

    /// Reads a cursor that came in an address. `None`: not one.
    pub fn read(text: &str) -> Option<Self> {
        Self::read_from(text, CursorPlace::Query)
    }

    /// Reads a cursor. `None`: not one.
    pub fn read_from(text: &str, place: CursorPlace) -> Option<Self> {
        if place == CursorPlace::Query && text.len() > MAX_LENGTH {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut rest = bytes.as_slice();
        if byte(&mut rest)? != VERSION {
            return None;
        }
        let away = byte(&mut rest)? & AWAY != 0;
        let at = number(&mut rest)?;
        let (mut lineages, mut late, mut refused) = (Vec::new(), 0, 0);
        let (mut passed, mut session) = (Passed::default(), None);
        for _ in 0..byte(&mut rest)? {
            let text = piece(&mut rest)?;
            if let Some(digest) = text.strip_prefix(LATE) {
                late = u32::from_str_radix(digest, 16).ok()?;
            } else if let Some(names) = text.strip_prefix(PASSED) {
                passed = Passed::read(names)?;
            } else if let Some(digest) = text.strip_prefix(REFUSED) {
                refused = u32::from_str_radix(digest, 16).ok()?;
            } else if let Some(name) = text.strip_prefix(SESSION) {
                session = is_session(name).then(|| name.into());
            }
            lineages.push(Lineage::new(text));
        }
        let mut positions = BTreeMap::new();
        while !rest.is_empty() {
            let topic = piece(&mut rest)?.to_owned();
            let lineage = lineages.get(usize::from(byte(&mut rest)?))?.clone();
            let id = EntryId { epoch: number(&mut rest)?, seq: number(&mut rest)? };
            positions.insert(topic, Position { lineage, id });
        }
        Some(Self { at, away, late, session, refused, passed, positions })
    }

    /// The cursor as text for an address, at most [`MAX_LENGTH`] characters. A position that does not fit is left out:
    /// its topic will be told `resync`.
    pub fn text(&self) -> String {
        self.text_for(CursorPlace::Query)
    }

    /// The cursor as text, as short as its place needs. A position that does not fit is left out.
    pub fn text_for(&self, place: CursorPlace) -> String {
        let mut lineages: Vec<&Lineage> = Vec::new();
        let mut topics = Vec::with_capacity(self.positions.len() * (ENTRY + 24));
        let late = (self.late != 0).then(|| format!("{LATE}{:08x}", self.late));
        let session = self.session.as_ref().map(|name| format!("{SESSION}{name}"));
        let refused = (self.refused != 0).then(|| format!("{REFUSED}{:08x}", self.refused));
        let others = [late, session, refused].into_iter().flatten().collect::<Vec<_>>();
        let mut size = 2 + 10 + 1 + others.iter().map(|text| text.len() + 1).sum::<usize>();
        for (topic, Position { lineage, id }) in &self.positions {
            let known = lineages.iter().position(|known| *known == lineage);
            let index = known.unwrap_or(lineages.len());
            let Some(index) = u8::try_from(index).ok().filter(|index| *index < MOST_LINEAGES) else {
                continue;
            };
            let start = topics.len();
            put_piece(&mut topics, topic);
            topics.push(index);
            put_number(&mut topics, id.epoch);
            put_number(&mut topics, id.seq);
            let more = topics.len() - start + if known.is_none() { lineage.as_str().len() + 2 } else { 0 };
            if size + more > place.most() {
                topics.truncate(start);
                continue;
            }
            size += more;
            if known.is_none() {
                lineages.push(lineage);
            }
        }
        // Positions come first; three bytes hold the length.
        let room = place.most().saturating_sub(size + PASSED.len() + 3);
        let passed = self.passed.text(self.at, room).map(|names| format!("{PASSED}{names}"));
        let mut bytes = Vec::with_capacity(topics.len() + RESERVED);
        bytes.extend_from_slice(&[VERSION, if self.away { AWAY } else { 0 }]);
        put_number(&mut bytes, self.at);
        let others = others.into_iter().chain(passed).collect::<Vec<_>>();
        bytes.push((lineages.len() + others.len()) as u8);
        for text in lineages.into_iter().map(Lineage::as_str).chain(others.iter().map(String::as_str)) {
            put_piece(&mut bytes, text);
        }
        bytes.extend_from_slice(&topics);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Forgets what is not followed any more. `topics`: what the client asks for.
    pub fn keep(&mut self, topics: &[String]) {
        let area = |topic: &str| topic.split(':').next().unwrap_or_default().to_owned();
        self.positions.retain(|topic, _| topics.iter().any(|asked| asked == topic || area(asked) == *topic));
    }

    /// The topics that it has positions of.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.positions.keys().map(String::as_str)
    }

    /// Forgets a topic.
    pub fn forget(&mut self, topic: &str) {
        self.positions.remove(topic);
    }

    /// The client is told an event, which moves its topic's position where a message has told one. What comes by the whole area
    /// alone has none: nobody said that its topic was followed up to there, and an area may have any number of topics.
    pub fn pass(&mut self, frame: &Frame) {
        self.at = self.at.max(frame.at());
        let Some((lineage, id)) = frame.position() else {
            return self.passed.push(frame.digest(), frame.at());
        };
        let is_past =
            |known: &Position| known.lineage == *lineage && known.id.epoch == id.epoch && known.id > *id;
        // By the whole area, events may come that the topic began behind: it stays where it is.
        if let Some(known) = self.positions.get_mut(frame.topic().as_str()).filter(|known| !is_past(known)) {
            *known = Position { lineage: lineage.clone(), id: *id };
        }
    }

    /// The client is told a message.
    pub fn note(&mut self, message: &NodeMessage) {
        match message {
            NodeMessage::Welcome(welcome) => {
                self.away = !welcome.live;
                self.late = welcome.late.as_ref().map_or(0, Late::digest);
                self.start(welcome.at, &welcome.positions, &welcome.refused);
            }
            NodeMessage::Subscribed { at, positions, refused } => self.start(*at, positions, refused),
            NodeMessage::Resync { at, positions, reason, .. } => {
                // The old `at` may be later than Redis' clock (another Redis). Kept, it would look like a missed live event
                // again and again.
                if matches!(reason, Reason::RedisChanged | Reason::Live) && !mutant::is("cursor-at") {
                    self.at = *at;
                }
                if *reason == Reason::RedisChanged {
                    // Its live events were named by another clock: a later one of the same content would be taken for one of them.
                    self.passed = Passed::default();
                }
                self.start(*at, positions, &[]);
            }
            NodeMessage::Unsubscribed { topics } => {
                for subject in topics {
                    if let Subject::Topic(topic) = subject {
                        self.positions.remove(topic.as_str());
                    }
                }
            }
            NodeMessage::Pong { at } => self.at = self.at.max(*at),
            NodeMessage::Status { live, late, .. } => {
                self.away = !live;
                self.late = late.as_ref().map_or(0, Late::digest);
            }
            _ => {}
        }
    }

    /// What is refused is not followed: by the whole area, its events may come all the same, and must not move its position.
    fn start(&mut self, at: u64, positions: &Positions, refused: &[Refused]) {
        self.positions.retain(|topic, _| !refused.iter().any(|refused| refused.topic == *topic));
        self.at = self.at.max(at);
        for (topic, position) in &positions.0 {
            self.positions.insert(topic.to_string(), position.clone());
        }
    }
}

/// Whether one more subject can be followed by a session whose positions must fit into a cursor.
pub fn has_room(followed: &[Subject], subject: &Subject) -> bool {
    let mut used = RESERVED;
    for (at, subject) in followed.iter().chain([subject]).enumerate() {
        let area = subject.area();
        if !followed[..at.min(followed.len())].iter().any(|other| other.area() == area) {
            used += area.len() + ENTRY;
        }
        if let Subject::Topic(topic) = subject {
            used += topic.as_str().len() + ENTRY;
        }
    }
    used <= MAX_BYTES
}

/// Which topics are refused, and why; 0: none.
pub(super) fn refused_digest(refused: &[Refused]) -> u32 {
    let mut named: Vec<_> =
        refused.iter().map(|refused| format!("{} {}", refused.code.name(), refused.topic)).collect();
    named.sort_unstable();
    named.dedup();
    let hash: [u8; 32] = Sha256::digest(named.join("\n")).into();
    let digest = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    if named.is_empty() { 0 } else { digest.max(1) }
}

/// Whether this can be the name of a session: nobody else's words get into a `welcome`.
fn is_session(name: &str) -> bool {
    name.len() == SESSION_LENGTH
        && name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
#[path = "cursor_tests.rs"]
mod tests;
