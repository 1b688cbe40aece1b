//! A message on a topic's channel: which of the two kinds it is, and that what the function sends is read back.

use bytes::Bytes;
use carillon::{
    fuzzing::message,
    protocol::{EntryId, Event},
};

use crate::{EVENT_BYTES, function};

/// Checks one input: a message. What follows its first space is also published and read back.
///
/// # Panics
/// Where a property does not hold.
pub fn check(data: &[u8]) {
    let (id, event) = message(Bytes::copy_from_slice(data), EVENT_BYTES);
    let expected = recorded(data);
    assert_eq!(id, expected.map(|(id, _)| id));
    let rest = expected.map_or(data, |(_, rest)| rest);
    assert_eq!(event, Event::parse(Bytes::copy_from_slice(rest), EVENT_BYTES));
    if id.is_none() && event.is_ok() {
        // A live event can never be taken for a recorded one, nor the other way round.
        assert!(!data[0].is_ascii_digit());
    }
    if let Ok(sent) = function::publish(b"carillon:comments:1", rest) {
        let (id, read) = message(sent.message.into(), EVENT_BYTES);
        assert_eq!(id.map(|id| id.to_string()).as_deref(), Some(sent.id.as_str()));
        assert_eq!(read, Event::parse(Bytes::copy_from_slice(rest), EVENT_BYTES));
        assert!(read.is_ok(), "published, but no event: {read:?}");
    }
}

/// `<epoch>-<seq> `, two numbers below 2^64, in no more room than the largest take.
fn recorded(data: &[u8]) -> Option<(EntryId, &[u8])> {
    let (epoch, rest) = number(data)?;
    let (seq, rest) = number(rest.strip_prefix(b"-")?)?;
    let rest = rest.strip_prefix(b" ")?;
    (data.len() - rest.len() <= 42).then_some((EntryId { epoch, seq }, rest))
}

fn number(data: &[u8]) -> Option<(u64, &[u8])> {
    let digits = data.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
    Some((data[..digits].iter().try_fold(0, add)?, &data[digits..]))
}
