//! Reading what Redis and our functions answer.

use bytes::Bytes;
use fred::types::Value;

use crate::bus::Marks;

/// The bytes of a string; `None` for anything else.
pub(super) fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::String(text) => Some(text.into_inner()),
        Value::Bytes(bytes) => Some(bytes),
        Value::Integer(number) => Some(Bytes::from(number.to_string())),
        _ => None,
    }
}

/// A string as text; empty for anything else.
pub(super) fn text(value: Value) -> String {
    bytes(value).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The items of a list.
pub(super) fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

/// A list of names and values in turn.
pub(super) fn pairs(value: Value) -> Vec<(String, String)> {
    if let Value::Map(map) = value {
        return map.inner().into_iter().map(|(name, value)| (text(name.into()), text(value))).collect();
    }
    let mut items = items(value).into_iter();
    let mut pairs = Vec::new();
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        pairs.push((text(name), text(value)));
    }
    pairs
}

/// A line `name:value` of an INFO answer.
pub(super) fn info<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Redis' clock, then areas and their marks in turn.
pub(super) fn marks(answer: Vec<Value>) -> Marks {
    let mut texts = answer.into_iter().map(text);
    let now = texts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut marks = Marks { now, ..Marks::default() };
    while let (Some(area), Some(mark)) = (texts.next(), texts.next()) {
        marks.marks.insert(area, mark.parse().unwrap_or(0));
    }
    marks
}
