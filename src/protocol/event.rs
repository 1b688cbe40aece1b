//! Events: small JSON objects that say *what* changed.
//!
//! An event is checked once per node and then passes through as the bytes that the publisher wrote. The same verdict
//! is given by the Redis function (`bus/publish.lua`); `tests/` holds one corpus for all doors.

use std::{collections::HashMap, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The deepest nesting of an event; the object itself is level 1.
pub const MAX_DEPTH: usize = 64;

/// Why something is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Larger than `limits.event_bytes`.
    #[error("the event has {bytes} bytes, at most {limit} are allowed: send what changed, not the content")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Not UTF-8 (RFC 8259, 8.1).
    #[error("the event is not valid UTF-8 at byte {0}")]
    Utf8(usize),
    /// Not an object, or not JSON (RFC 8259) at all.
    #[error("the event is not a JSON object: {0}")]
    Json(String),
    /// `type` is missing or not `<noun>.<verb>`.
    #[error(
        "the event needs a \"type\" of the form <noun>.<verb> in lower case, for example \"comment.created\""
    )]
    Type,
    /// `id` or `source` is there but not a string, so that duplicates could not be told.
    #[error("the event's {0:?} must be a non-empty string")]
    Attribute(&'static str),
}

/// A checked event: a JSON object on one line, otherwise the publisher's bytes. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    json: Bytes,
}

/// The attributes that Carillon itself looks at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// `<noun>.<verb>`.
    pub kind: String,
    /// With `source`, what de-duplication goes by.
    pub id: Option<String>,
    /// Who publishes.
    pub source: Option<String>,
}

impl Event {
    /// Checks an event. `limit` is `limits.event_bytes`.
    pub fn parse(json: Bytes, limit: usize) -> Result<Self, EventError> {
        if json.len() > limit {
            return Err(EventError::TooLarge { bytes: json.len(), limit });
        }
        let text = std::str::from_utf8(&json).map_err(|e| EventError::Utf8(e.valid_up_to()))?;
        let mut found = Found::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = TopLevel(&mut found).deserialize(&mut reader).and_then(|()| reader.end());
        read.map_err(|e| EventError::Json(e.to_string()))?;
        found.check()?;
        Ok(Self { json: on_one_line(json) })
    }

    /// The object as JSON on one line.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// Reads the attributes anew from the bytes; not for the delivery path.
    pub fn attributes(&self) -> Attributes {
        let [kind, id, source] = texts(&self.json, ["type", "id", "source"]);
        Attributes { kind: kind.unwrap_or_default(), id, source }
    }

    /// `traceparent` and `tracestate` (CloudEvents extension «Distributed Tracing») of an event's JSON; `None` without the
    /// first, which is found without reading the whole.
    pub fn trace_context(json: &[u8]) -> Option<HashMap<String, String>> {
        const NAMES: [&str; 2] = ["traceparent", "tracestate"];
        let quoted = br#""traceparent""#;
        json.windows(quoted.len()).find(|part| part == quoted)?;
        let [parent, state] = texts(json, NAMES);
        let found = NAMES.map(str::to_owned).into_iter().zip([Some(parent?), state]);
        Some(found.filter_map(|(name, text)| Some((name, text?))).collect())
    }
}

/// The members of these names at the top that are texts.
fn texts<const N: usize>(json: &[u8], names: [&str; N]) -> [Option<String>; N] {
    // A map, because the last of two members of one name counts.
    let members: HashMap<String, &RawValue> = serde_json::from_slice(json).unwrap_or_default();
    names.map(|name| serde_json::from_str(members.get(name)?.get()).ok())
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.json))
    }
}

/// Line breaks can stand between the tokens of JSON only, where a space means the same; SSE and `tail` want one line.
fn on_one_line(json: Bytes) -> Bytes {
    // A search for one byte looks at many bytes at a time, one for either of two does not.
    if !json.contains(&b'\n') && !json.contains(&b'\r') {
        return json;
    }
    json.iter().map(|b| if matches!(b, b'\n' | b'\r') { b' ' } else { *b }).collect()
}

/// Whether `text` is `<noun>.<verb>`: at least two dot-separated parts of a-z, 0-9, `_` and `-`, the first starting with
/// a letter. More parts are the reverse-DNS names of other `CloudEvents` producers (`com.example.thing.created`).
fn is_type(text: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
    };
    text.len() <= 255
        && text.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
        && text.contains('.')
        && text.split('.').all(part)
}

#[derive(Default)]
struct Found {
    kind: Attribute,
    id: Attribute,
    source: Attribute,
}

#[derive(Default, PartialEq)]
enum Attribute {
    #[default]
    Absent,
    Good,
    Bad,
}

impl Found {
    fn check(&self) -> Result<(), EventError> {
        if self.kind != Attribute::Good {
            return Err(EventError::Type);
        }
        if self.id == Attribute::Bad {
            return Err(EventError::Attribute("id"));
        }
        if self.source == Attribute::Bad {
            return Err(EventError::Attribute("source"));
        }
        Ok(())
    }
}

struct TopLevel<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for TopLevel<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TopLevel<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<Name>()? {
            let (slot, grammar): (_, Grammar) = match name {
                Name::Type => (&mut self.0.kind, is_type),
                Name::Id => (&mut self.0.id, |text| !text.is_empty()),
                Name::Source => (&mut self.0.source, |text| !text.is_empty()),
                Name::Other => {
                    map.next_value_seed(Value { depth: 1, text: None })?;
                    continue;
                }
            };
            let mut good = false;
            map.next_value_seed(Value { depth: 1, text: Some((&mut good, grammar)) })?;
            *slot = if good { Attribute::Good } else { Attribute::Bad };
        }
        Ok(())
    }
}

/// The name of a member, as far as it counts. It is looked at where it stands: serde makes a new text even of a `Cow`.
enum Name {
    Type,
    Id,
    Source,
    Other,
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl Visitor<'_> for NameVisitor {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a member")
    }

    fn visit_str<E>(self, name: &str) -> Result<Name, E> {
        Ok(match name {
            "type" => Name::Type,
            "id" => Name::Id,
            "source" => Name::Source,
            _ => Name::Other,
        })
    }
}

/// What a string must be.
type Grammar = fn(&str) -> bool;

/// Any JSON value below `depth` levels; where `text` is set, says whether it is a string that fits the grammar.
struct Value<'a> {
    depth: usize,
    text: Option<(&'a mut bool, Grammar)>,
}

impl Value<'_> {
    fn below<E: serde::de::Error>(&self) -> Result<usize, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom(format!("nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(self.depth + 1)
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        if let Some((good, grammar)) = self.text {
            *good = grammar(text);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let depth = self.below()?;
        while seq.next_element_seed(Value { depth, text: None })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let depth = self.below()?;
        while map.next_key::<Name>()?.is_some() {
            map.next_value_seed(Value { depth, text: None }).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Event, EventError> {
        Event::parse(Bytes::copy_from_slice(json.as_bytes()), 65536)
    }

    #[test]
    fn what_a_publisher_wrote_passes_untouched() {
        for good in [
            r#"{"type":"comment.created"}"#,
            r#" {"type":"project_item.saved","data":{"a":[1,2.5e3,null,true,"\u00e9"]},"x-own":1} "#,
            r#"{"specversion":"1.0","id":"A-1","source":"/ctx","type":"com.example.some-event.v2","data":{}}"#,
        ] {
            assert_eq!(parse(good).unwrap().json(), good.as_bytes());
        }
        assert_eq!(parse("{\n\"type\":\r\n\"a.b\"}").unwrap().json(), &b"{ \"type\":  \"a.b\"}"[..]);
    }

    #[test]
    fn the_last_of_two_attributes_counts() {
        let event = parse(r#"{"type":"x","id":"1","type":"a.b","\u0069d":"\u0032","source":"s"}"#).unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(event.attributes(), Attributes { kind: "a.b".into(), id: text("2"), source: text("s") });
    }

    #[test]
    fn a_trace_context_is_found_at_the_top_only() {
        let of = |json: &str| Event::trace_context(parse(json).unwrap().json());
        let both = of(r#"{"type":"a.b","tracestate":"v=1","traceparent":"00-1-2-01"}"#).unwrap();
        assert_eq!((both["traceparent"].as_str(), both["tracestate"].as_str()), ("00-1-2-01", "v=1"));
        for without in [
            r#"{"type":"a.b"}"#,
            r#"{"type":"a.b","data":{"traceparent":"00-1-2-01"}}"#,
            r#"{"type":"a.b","traceparent":7}"#,
            r#"{"type":"a.b","tracestate":"v=1"}"#,
        ] {
            assert_eq!(of(without), None, "{without}");
        }
    }

    #[test]
    fn nesting_ends_at_the_limit() {
        let nested = |n: usize| format!(r#"{{"type":"a.b","data":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(parse(&nested(MAX_DEPTH - 1)).is_ok());
        assert!(matches!(parse(&nested(MAX_DEPTH)), Err(EventError::Json(_))));
        assert!(parse(&nested(20_000)).is_err());
    }

    #[test]
    fn every_refusal_has_its_reason() {
        use EventError as E;
        assert!(matches!(parse("[]"), Err(E::Json(_))));
        for bad in ["", "nonsense", "42", "{", r#"{"type":"a.b"} x"#, r#"{"type":"a.b","n":NaN}"#] {
            assert!(matches!(parse(bad), Err(E::Json(_))), "{bad}");
        }
        for bad in [r#"{"type":"a.b","n":0x1F}"#, r#"{"type":"a.b","n":01}"#, r#"{"type":"a.b","n":1e999}"#] {
            assert!(matches!(parse(bad), Err(E::Json(_))), "{bad}");
        }
        for bad in ["{\"type\":\"a.b\",\"s\":\"\t\"}", r#"{"type":"a.b","s":"\ud800"}"#, r#"{"type":"a.b",}"#]
        {
            assert!(matches!(parse(bad), Err(E::Json(_))), "{bad}");
        }
        for bad in ["{}", r#"{"type":1}"#, r#"{"type":"x"}"#, r#"{"type":"A.b"}"#, r#"{"type":"a."}"#] {
            assert_eq!(parse(bad), Err(E::Type), "{bad}");
        }
        assert_eq!(parse(r#"{"type":"a.b","id":7}"#), Err(E::Attribute("id")));
        assert_eq!(parse(r#"{"type":"a.b","source":""}"#), Err(E::Attribute("source")));
        assert!(matches!(
            Event::parse(Bytes::from_static(b"{\"type\":\"a.b\",\"s\":\"\xff\"}"), 99),
            Err(E::Utf8(_))
        ));
        assert!(matches!(Event::parse(Bytes::from(vec![b' '; 100]), 99), Err(E::TooLarge { .. })));
    }
}
