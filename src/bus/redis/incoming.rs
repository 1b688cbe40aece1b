//! What comes in on a connection with subscriptions: messages, and answers to what was asked in between.
//!
//! RESP3 keeps the two apart by their first byte (<https://redis.io/docs/latest/develop/reference/protocol-spec/#pushes>).

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use fred::{
    prelude::{Error, ErrorKind},
    types::Value,
};
use redis_protocol::resp3::{decode::complete::decode_bytes_mut, types::BytesFrame};

/// A message of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// The name of the channel.
    pub(super) channel: Bytes,
    /// It comes because of a pattern; another copy may have come because of the channel.
    pub(super) by_pattern: bool,
    /// What was published.
    pub(super) payload: Bytes,
}

/// What came in.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A message.
    Message(Message),
    /// A sharded channel is subscribed to; how many of this connection are then.
    ShardSubscribed(usize),
    /// A push that says nothing to us.
    Other,
    /// The answer to the first command that has none yet.
    Answer(Result<Value, Error>),
}

/// Takes the first thing out of the bytes that have come; `None` while it is not whole.
pub(super) fn decode(bytes: &mut BytesMut) -> Result<Option<Incoming>, Error> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if let Some(message) = MessageSpans::of(bytes).map(|spans| spans.take(bytes)) {
        return Ok(Some(Incoming::Message(message)));
    }
    // Without its details, which may be all that has come.
    let decoded = decode_bytes_mut(bytes).map_err(|error| {
        Error::new(
            ErrorKind::Protocol,
            format!("what Redis sends cannot be read ({})", error.kind().to_str()),
        )
    })?;
    Ok(decoded.map(|(frame, ..)| match frame {
        BytesFrame::Push { data, .. } => push(data),
        frame => Incoming::Answer(value(frame)),
    }))
}

/// Where the parts of a message lie that has come whole: nearly all that comes in is one, and the library, which reads everything
/// else, takes several times as long for it.
struct MessageSpans {
    by_pattern: bool,
    channel: Range<usize>,
    payload: Range<usize>,
    /// Where it ends.
    end: usize,
}

impl MessageSpans {
    /// `None` for anything else.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut strings = BulkStrings { bytes, at: 4 };
        let by_pattern = match bytes.get(..4)? {
            b">3\r\n" => {
                let kind = strings.next()?;
                if !matches!(&bytes[kind], b"message" | b"smessage") {
                    return None;
                }
                false
            }
            b">4\r\n" => {
                let (kind, _pattern) = (strings.next()?, strings.next()?);
                if &bytes[kind] != b"pmessage" {
                    return None;
                }
                true
            }
            _ => return None,
        };
        let (channel, payload) = (strings.next()?, strings.next()?);
        Some(Self { by_pattern, channel, payload, end: strings.at })
    }

    fn take(self, bytes: &mut BytesMut) -> Message {
        let whole = bytes.split_to(self.end).freeze();
        let (channel, payload) = (whole.slice(self.channel), whole.slice(self.payload));
        Message { channel, by_pattern: self.by_pattern, payload }
    }
}

/// Where strings lie that follow each other (`$5\r\nhello\r\n`).
struct BulkStrings<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for BulkStrings<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let digits = self.bytes.get(self.at..)?.strip_prefix(b"$")?;
        let count = digits.iter().take_while(|digit| digit.is_ascii_digit()).count();
        let length = std::str::from_utf8(&digits[..count]).ok()?.parse::<usize>().ok()?;
        let start = self.at + 1 + count + 2;
        let end = start.checked_add(length)?;
        if digits.get(count..count + 2)? != b"\r\n" || self.bytes.get(end..end.checked_add(2)?)? != b"\r\n" {
            return None;
        }
        self.at = end + 2;
        Some(start..end)
    }
}

fn push(elements: Vec<BytesFrame>) -> Incoming {
    let mut elements = elements.into_iter();
    let (kind, last) = (elements.next().and_then(text), elements.next_back());
    let by_pattern = match kind.as_deref() {
        Some(b"message" | b"smessage") => false,
        Some(b"pmessage") => true,
        Some(b"ssubscribe") => {
            return match last {
                Some(BytesFrame::Number { data, .. }) => {
                    Incoming::ShardSubscribed(usize::try_from(data).unwrap_or(0))
                }
                _ => Incoming::Other,
            };
        }
        _ => return Incoming::Other,
    };
    match (elements.next_back().and_then(text), last.and_then(text)) {
        (Some(channel), Some(payload)) => Incoming::Message(Message { channel, by_pattern, payload }),
        _ => Incoming::Other,
    }
}

fn text(frame: BytesFrame) -> Option<Bytes> {
    match frame {
        BytesFrame::BlobString { data, .. }
        | BytesFrame::SimpleString { data, .. }
        | BytesFrame::VerbatimString { data, .. } => Some(data),
        _ => None,
    }
}

/// As fred gives it for the other connections. What no command of ours is answered with is null.
fn value(frame: BytesFrame) -> Result<Value, Error> {
    match frame {
        BytesFrame::SimpleError { data, .. } => Err(refusal(data.to_string())),
        BytesFrame::BlobError { data, .. } => Err(refusal(String::from_utf8_lossy(&data).into_owned())),
        BytesFrame::Number { data, .. } => Ok(Value::Integer(data)),
        BytesFrame::Array { data, .. } => {
            data.into_iter().map(value).collect::<Result<_, _>>().map(Value::Array)
        }
        frame => Ok(text(frame).map_or(Value::Null, Value::Bytes)),
    }
}

fn refusal(text: String) -> Error {
    Error::new(ErrorKind::Unknown, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut bytes: BytesMut) -> Vec<Incoming> {
        std::iter::from_fn(|| decode(&mut bytes).unwrap()).collect()
    }

    #[test]
    fn messages_and_answers_are_told_apart_wherever_the_bytes_are_cut() {
        let whole = b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\n{}\r\n+OK\r\n>4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$0\r\n\r\n\
            >3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:7\r\n-NOPERM no\r\n=7\r\ntxt:a=1\r\n>3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n\
            *2\r\n:1\r\n*1\r\n$1\r\nb\r\n";
        let shown = [
            "Message(Message { channel: b\"a\", by_pattern: false, payload: b\"{}\" })",
            "Answer(Ok(Bytes(b\"OK\")))",
            "Message(Message { channel: b\"a\", by_pattern: true, payload: b\"\" })",
            "ShardSubscribed(7)",
            "Answer(Err(Error { details: \"NOPERM no\", kind: Unknown }))",
            "Answer(Ok(Bytes(b\"a=1\")))",
            "Other",
            "Answer(Ok(Array([Integer(1), Array([Bytes(b\"b\")])])))",
        ];
        let show = |all: Vec<Incoming>| all.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>();
        assert_eq!(show(all(BytesMut::from(&whole[..]))), shown);
        for cut in 1..whole.len() {
            let mut bytes = BytesMut::from(&whole[..cut]);
            let mut found = Vec::new();
            while let Some(one) = decode(&mut bytes).unwrap() {
                found.push(one);
            }
            bytes.extend_from_slice(&whole[cut..]);
            found.extend(all(bytes));
            assert_eq!(show(found), shown, "cut at {cut}");
        }
    }

    #[test]
    fn the_short_way_reads_what_the_library_reads() {
        let strings = ["", "a", "\r\n", "$1\r\na\r\n", "{\"type\":\"a.b\"}", "ä€𝄞", &"x".repeat(70_000)];
        for (kind, pattern) in [("message", None), ("smessage", None), ("pmessage", Some("a*"))] {
            for (channel, payload) in strings.iter().flat_map(|one| strings.iter().map(move |two| (one, two)))
            {
                let elements = std::iter::once(kind).chain(pattern).chain([*channel, *payload]);
                let elements =
                    elements.map(|text| format!("${}\r\n{text}\r\n", text.len())).collect::<Vec<_>>();
                let bytes = format!(">{}\r\n{}", elements.len(), elements.concat());
                let short =
                    MessageSpans::of(bytes.as_bytes()).unwrap().take(&mut BytesMut::from(bytes.as_str()));
                let read = decode_bytes_mut(&mut BytesMut::from(bytes.as_str())).unwrap();
                let Some((BytesFrame::Push { data, .. }, ..)) = read else { panic!("{bytes:?}") };
                assert!(matches!(push(data), Incoming::Message(long) if long == short), "{bytes:?}");
            }
        }
        for odd in
            [">3\r\n$18446744073709551615\r\n", ">3\r\n$-1\r\n", ">3\r\n$7\r\nmessagexx", ">3\r\n:1\r\n"]
        {
            assert!(MessageSpans::of(odd.as_bytes()).is_none(), "{odd:?}");
        }
    }

    #[test]
    fn what_is_no_resp_is_an_error() {
        let error = decode(&mut BytesMut::from(&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..])).unwrap_err();
        assert!(error.details().starts_with("what Redis sends cannot be read"), "{error}");
    }
}
