//! Cursors: whatever a client brings back is read safely, and what is written is read back.

use std::collections::BTreeMap;

use carillon::{
    protocol::{Position, Resume},
    session::cursor::{Cursor, MAX_LENGTH},
};

/// Room that a cursor keeps free for the longest `at` and lengths.
const SPARE: usize = 64;

/// Checks one input: a cursor as text; and lines of `topic position` as what a cursor is made from.
///
/// # Panics
/// Where a property does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some(cursor) = Cursor::read(text) {
        assert!(text.len() <= MAX_LENGTH);
        survives(&cursor, text.len() + SPARE < MAX_LENGTH);
    }
    let mut resume = Resume { at: Some(text.len() as u64), ..Resume::default() };
    for line in text.lines() {
        if let Some((topic, position)) = line.split_once(' ') {
            resume.positions.insert(topic.into(), position.into());
        }
        if let Ok(position) = line.parse::<Position>() {
            assert_eq!(position.to_string().parse().as_ref(), Ok(&position));
        }
    }
    let cursor = Cursor::from_resume(&resume);
    let readable = |(topic, position): (&String, &String)| {
        let position = position.parse::<Position>().ok()?;
        Some((topic.clone(), position.to_string()))
    };
    let expected: BTreeMap<_, _> = resume.positions.iter().filter_map(readable).collect();
    assert_eq!(cursor.resume().positions, expected);
    survives(&cursor, text.len() * 4 / 3 + SPARE < MAX_LENGTH / 2);
}

/// A cursor is read back as it was written; where it does not fit, positions are left out and none is changed.
fn survives(cursor: &Cursor, fits: bool) {
    let text = cursor.text();
    assert!(text.len() <= MAX_LENGTH, "{} characters", text.len());
    assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')), "{text}");
    let read = Cursor::read(&text).expect("what was written is read");
    if fits {
        assert_eq!(read, *cursor);
    }
    assert_eq!((read.at, read.away), (cursor.at, cursor.away));
    let (kept, all) = (read.resume().positions, cursor.resume().positions);
    assert!(kept.iter().all(|(topic, position)| all.get(topic) == Some(position)));
    assert_eq!(read.text(), text, "there is one spelling of a cursor");
}
