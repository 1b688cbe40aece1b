//! JSON objects and nothing else. What serde derives for a struct also takes an array of its fields in their order, so
//! that `["ping"]` would be a message. And `null` where a list or an object may be missing, which many languages write
//! for «none», is as if it were. Must not know what the objects mean.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A struct that was written as an object.
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// For a list that may be missing: `#[serde(default, deserialize_with = "or_default")]`.
pub(crate) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// For texts by name, of which each, or all, may be missing.
pub(super) fn texts<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let texts: BTreeMap<String, Option<String>> = or_default(deserializer)?;
    Ok(texts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect())
}

/// For an optional field: `#[serde(default, deserialize_with = "optional")]`.
pub(super) fn optional<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<Object<T>>::deserialize(deserializer)?.map(|object| object.0))
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::message::{ClientMessage, Connect, Resume};

    #[test]
    fn null_is_as_if_it_were_missing() {
        let plain = ClientMessage::Connect(Connect::default());
        for text in [
            r#"{"type":"connect","topics":null}"#,
            r#"{"type":"connect","topics":null,"token":null,"client":null,"resume":null}"#,
        ] {
            assert_eq!(ClientMessage::parse(text).as_ref(), Ok(&plain), "{text}");
        }
        let resumed = |positions: &[(&str, &str)]| {
            let positions = positions.iter().map(|(topic, at)| ((*topic).into(), (*at).into())).collect();
            Some(Resume { positions, ..Resume::default() })
        };
        for (resume, right) in [
            (r#"{"at":null,"positions":null}"#, resumed(&[])),
            (r#"{"positions":{"comments:42":null,"projects":"x.1-2"}}"#, resumed(&[("projects", "x.1-2")])),
        ] {
            let connect = ClientMessage::parse(&format!(r#"{{"type":"connect","resume":{resume}}}"#));
            let right_connect = Connect { resume: right.clone(), ..Connect::default() };
            assert_eq!(connect, Ok(ClientMessage::Connect(right_connect)), "{resume}");
            let subscribe = format!(r#"{{"type":"subscribe","topics":["projects"],"resume":{resume}}}"#);
            let right = ClientMessage::Subscribe { topics: vec!["projects".into()], resume: right };
            assert_eq!(ClientMessage::parse(&subscribe), Ok(right), "{resume}");
        }
    }

    #[test]
    fn what_must_be_there_may_not_be_null() {
        for text in [
            r#"{"type":null}"#,
            r#"{"type":"subscribe","topics":null}"#,
            r#"{"type":"unsubscribe","topics":null}"#,
            r#"{"type":"token","token":null}"#,
            r#"{"type":"connect","topics":[null]}"#,
            r#"{"type":"connect","topics":{}}"#,
            r#"{"type":"connect","resume":{"positions":[]}}"#,
            r#"{"type":"connect","resume":{"positions":{"comments:42":7}}}"#,
        ] {
            assert!(ClientMessage::parse(text).is_err(), "{text}");
        }
    }
}
