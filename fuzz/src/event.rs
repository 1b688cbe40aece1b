//! The event envelope: the node, the publish function and `serde_json` are asked and must agree.

use bytes::Bytes;
use carillon::{
    hub::Frame,
    protocol::{EntryId, Event, EventError, Lineage, Topic},
};
use serde_json::{Map, Value};

use crate::{EVENT_BYTES, areas, function, verdict};

/// Checks one input: an event.
///
/// # Panics
/// Where a property does not hold.
pub fn check(data: &[u8]) {
    let read = Event::parse(Bytes::copy_from_slice(data), EVENT_BYTES);
    assert_eq!(read.is_ok(), is_event(data), "serde_json says otherwise: {read:?}");
    let sent = function::publish(b"carillon:comments:1", data);
    match (&read, &sent) {
        (Ok(event), Ok(sent)) => {
            assert_eq!(sent.message, [sent.id.as_bytes(), b" ", event.json()].concat());
            let attributes = event.attributes();
            let source = attributes.source.unwrap_or_default();
            let name = attributes.id.map(|id| format!("{}:{source}{id}", source.len()).into_bytes());
            assert_eq!(name, sent.name, "duplicates are known by another name");
        }
        (Err(error), Err(text)) => {
            assert_eq!(verdict::of_error(error), verdict::of_sentence(text), "{error} / {text}");
        }
        _ => panic!("the node says {read:?}, the function {sent:?}"),
    }
    if let Ok(event) = read {
        good(&event, data);
    }
}

/// What holds for everything that passed.
fn good(event: &Event, data: &[u8]) {
    let object: Map<String, Value> = serde_json::from_slice(data).expect("an object");
    assert_eq!(event.json().len(), data.len());
    assert!(!event.json().iter().any(|byte| matches!(byte, b'\r' | b'\n')), "more than one line");
    assert_eq!(serde_json::from_slice::<Map<_, _>>(event.json()).ok().as_ref(), Some(&object));
    assert_eq!(Event::parse(event.json().clone(), data.len()).as_ref(), Ok(event), "once more");
    let short = data.len() - 1;
    let refusal = EventError::TooLarge { bytes: data.len(), limit: short };
    assert_eq!(Event::parse(Bytes::copy_from_slice(data), short), Err(refusal));
    assert_eq!(event.attributes().kind, object["type"].as_str().expect("a type"));

    let topic = Topic::parse("comments:1", &areas()).expect("a topic");
    let at = Some((Lineage::new("cafe"), EntryId { epoch: 7, seq: 1 }));
    let frame = Frame::new(topic, at, 9, &event);
    let message: Value = serde_json::from_slice(frame.json()).expect("a message");
    assert_eq!(message["event"], Value::Object(object));
    assert_eq!((&message["topic"], &message["position"]), (&"comments:1".into(), &"cafe.7-1".into()));
}

/// The verdict by `serde_json`'s own tree.
fn is_event(data: &[u8]) -> bool {
    let Ok(object) = serde_json::from_slice::<Map<String, Value>>(data) else { return false };
    let text = |name: &str| object.get(name).map(|value| value.as_str().unwrap_or(""));
    data.len() <= EVENT_BYTES
        && depth(data) <= 64
        && text("type").is_some_and(is_type)
        && text("id") != Some("")
        && text("source") != Some("")
}

/// How deep valid JSON is nested: by its brackets, since a tree forgets members that come twice.
fn depth(json: &[u8]) -> usize {
    let (mut deepest, mut depth, mut quoted, mut escaped) = (0, 0usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn is_type(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    text.len() <= 255
        && parts.len() > 1
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && parts.iter().all(|part| {
            !part.is_empty() && part.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
        })
}
