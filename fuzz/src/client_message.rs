//! What a client says: each line of the input is a message. Each is judged against `serde_json`'s tree, then all are said
//! to a session, which must never follow what it may not, nor more than it may.

use std::sync::Arc;

use carillon::{
    auth::{Grant, Identity, Patterns},
    protocol::{ClientMessage, Proof, Resume, Subject, message::Connect},
    session::{
        Machine, SessionPolicy, Transport,
        machine::{Input, Output},
    },
};
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::areas;

/// Topics that the session may follow.
const TOPICS: usize = 4;

/// Checks one input.
///
/// # Panics
/// Where a property does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    one(text);
    let transport = if text.len() % 2 == 0 { Transport::WebSocket } else { Transport::Sse };
    let mut session = Session::new(transport);
    for line in text.lines() {
        one(line);
        session.hear(ClientMessage::parse(line));
    }
}

/// One message, read here and by the tree.
fn one(text: &str) {
    let read = ClientMessage::parse(text);
    let tree = serde_json::from_str::<Map<String, Value>>(text).ok();
    match &tree {
        // Written anew, so that no name comes twice: then both must agree.
        Some(object) => {
            let again = ClientMessage::parse(&Value::from(object.clone()).to_string());
            assert_eq!(again.as_ref().ok(), meant(object).as_ref(), "{text}");
            assert!(read.is_err() || read == again, "{text}");
        }
        // What nobody looks at may be deeper, or a number larger, than a tree can hold.
        None => assert!(read.is_err() || is_object(text), "not an object, but taken for {read:?}"),
    }
    if let Err(error) = read {
        // Too short to repeat a token.
        assert!(error.len() < 80 && !error.is_empty(), "{error}");
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// What a message means, by the protocol's table; `None`: malformed.
fn meant(object: &Map<String, Value>) -> Option<ClientMessage> {
    Some(match object.get("type")?.as_str()? {
        "connect" => ClientMessage::Connect(Connect {
            token: text(object.get("token"))?,
            topics: present(object.get("topics")).map_or(Some(Vec::new()), strings)?,
            client: text(object.get("client"))?,
            resume: resume(object.get("resume"))?,
        }),
        "subscribe" => ClientMessage::Subscribe {
            topics: strings(object.get("topics")?)?,
            resume: resume(object.get("resume"))?,
        },
        "unsubscribe" => {
            resume(object.get("resume"))?;
            ClientMessage::Unsubscribe { topics: strings(object.get("topics")?)? }
        }
        "token" => ClientMessage::Token { token: object.get("token")?.as_str()?.into() },
        "ping" => ClientMessage::Ping,
        other => ClientMessage::Unknown(other.into()),
    })
}

/// An optional string: `None` is a wrong one.
#[allow(clippy::option_option, reason = "wrong, absent and present are three things")]
fn text(value: Option<&Value>) -> Option<Option<String>> {
    match value {
        None | Some(Value::Null) => Some(None),
        Some(value) => Some(Some(value.as_str()?.into())),
    }
}

/// `null` where a list or an object may be missing is as if it were.
fn present(value: Option<&Value>) -> Option<&Value> {
    value.filter(|value| !value.is_null())
}

fn strings(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect()
}

#[allow(clippy::option_option, reason = "wrong, absent and present are three things")]
fn resume(value: Option<&Value>) -> Option<Option<Resume>> {
    let Some(value) = present(value) else { return Some(None) };
    let object = value.as_object()?;
    let at = present(object.get("at")).map(|at| at.as_u64().ok_or(())).transpose().ok()?;
    let entry = |(topic, position): (&String, &Value)| Some((topic.clone(), position.as_str()?.to_owned()));
    let positions = match present(object.get("positions")) {
        Some(positions) => positions
            .as_object()?
            .iter()
            .filter(|(_, position)| !position.is_null())
            .map(entry)
            .collect::<Option<_>>()?,
        None => std::collections::BTreeMap::new(),
    };
    Some(Some(Resume { at, positions, ..Resume::default() }))
}

/// A session of Anna's, and what it follows by its own words.
struct Session {
    machine: Machine,
    transport: Transport,
    identity: Identity,
    followed: Vec<Subject>,
    ended: bool,
}

impl Session {
    fn new(transport: Transport) -> Self {
        let identity = Identity {
            user: "Anna".into(),
            grant: Grant::new("Anna", ["comments:*", "notifications:*", "comments"]),
            publish: Patterns::default(),
            expires: Some(100),
            proof: Arc::new(Proof::lasting("Anna")),
        };
        let policy = SessionPolicy {
            node: "n".into(),
            areas: areas(),
            heartbeat: 25,
            topics: TOPICS,
            messages_per_second: 0,
            subscriptions_per_second: 0,
            sharded: false,
        };
        let machine = Machine::new(Arc::new(policy), transport, Some(Box::new(identity.clone())));
        Self { machine, transport, identity, followed: Vec::new(), ended: false }
    }

    fn hear(&mut self, message: Result<ClientMessage, String>) {
        let asked = match &message {
            Ok(ClientMessage::Connect(connect)) => connect.topics.len(),
            Ok(ClientMessage::Subscribe { topics, .. }) => topics.len(),
            _ => 0,
        };
        let malformed = message.is_err();
        let mut inputs = vec![message.map_or_else(Input::Malformed, Input::Message)];
        while let Some(input) = inputs.pop() {
            for output in self.machine.take(input, 50_000) {
                assert!(!self.ended, "{output:?} after the end");
                match output {
                    // Any token is a good one of Anna's, which allows less.
                    Output::Check(_) => {
                        let grant = Grant::new("Anna", ["comments:1"]);
                        self.identity = Identity { grant, ..self.identity.clone() };
                        inputs.push(Input::Checked(Ok(Box::new(self.identity.clone()))));
                    }
                    Output::Admit { user } => {
                        assert_eq!(user, "Anna");
                        inputs.push(Input::Admitted(true));
                    }
                    Output::Connect(_, _, request) | Output::Subscribe(request) => {
                        self.follow(&request, asked)
                    }
                    Output::Unsubscribe(gone) => self.followed.retain(|subject| !gone.contains(subject)),
                    Output::End(_) => self.ended = true,
                    Output::Say(_) | Output::Until(_) | Output::Renew(_) | Output::Ping => {}
                }
            }
        }
        assert!(!malformed || self.ended, "a malformed message is the end");
        let grant = &self.identity.grant;
        assert!(self.followed.iter().all(|subject| grant.allows(subject, &areas())), "{:?}", self.followed);
    }

    fn follow(&mut self, request: &carillon::relay::Request, asked: usize) {
        assert!(request.subjects.len() + request.refused.len() <= asked);
        for subject in &request.subjects {
            assert!(self.transport != Transport::Poll || !matches!(subject, Subject::Every(_)));
            assert!(subject.area() == "comments" || !matches!(subject, Subject::Every(_)), "{subject}");
            if !self.followed.contains(subject) {
                self.followed.push(subject.clone());
            }
        }
        assert!(self.followed.len() <= TOPICS, "{:?}", self.followed);
    }
}
