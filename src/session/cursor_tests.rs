//! Cursors: what fits, what survives the way, and what a told message makes of them.

use proptest::prelude::*;

use super::*;
use crate::protocol::Areas;

fn position(seq: u64) -> Position {
    format!("0123456789abcdef.1763700000000-{seq}").parse().unwrap()
}

#[test]
fn what_fits_by_the_count_fits_in_fact() {
    let areas = Areas::new(["comments", "project-items"], [], []).unwrap();
    let mut followed = Vec::new();
    let mut cursor = Cursor { at: 1_763_700_000_000, ..Cursor::default() };
    for n in 0.. {
        let subject = Subject::parse(&format!("project-items:{n:0>40}"), &areas).unwrap();
        if !has_room(&followed, &subject) {
            break;
        }
        cursor.positions.insert(subject.to_string(), position((1 << 35) - 1));
        cursor.positions.insert(subject.area().to_owned(), position((1 << 35) - 1));
        followed.push(subject);
    }
    assert!(followed.len() > 38, "{}", followed.len());
    let text = cursor.text();
    assert!(text.len() <= MAX_LENGTH);
    assert_eq!(Cursor::read(&text).unwrap(), cursor);
}

#[test]
fn the_room_that_operators_are_told_of_is_the_room_that_there_is() {
    let areas = Areas::new(["comments"], [], []).unwrap();
    let mut followed = Vec::new();
    while let subject = Subject::parse(&format!("comments:{:0>7}", followed.len()), &areas).unwrap()
        && has_room(&followed, &subject)
    {
        followed.push(subject);
    }
    assert_eq!(followed.len(), crate::config::PER_CURSOR);
}

#[test]
fn what_does_not_fit_is_left_out() {
    let positions = (0..500).map(|n| (format!("comments:{n}"), position(n))).collect();
    let cursor = Cursor { at: 7, away: true, late: 9, positions, ..Cursor::default() };
    let read = Cursor::read(&cursor.text()).unwrap();
    assert!(cursor.text().len() <= MAX_LENGTH && read.positions.len() > 100);
    assert!(read.away && read.at == 7 && read.late == 9);
}

#[test]
fn in_a_body_everything_fits() {
    let positions = (0..500).map(|n| (format!("comments:{n:0>200}"), position(n))).collect();
    let cursor = Cursor { at: 7, positions, ..Cursor::default() };
    let text = cursor.text_for(CursorPlace::Body);
    assert_eq!(Cursor::read_from(&text, CursorPlace::Body).as_ref(), Some(&cursor));
    assert_eq!(Cursor::read(&text), None, "an address has no room for it");
}

#[test]
fn only_what_is_asked_for_is_kept() {
    let positions =
        ["comments:1", "comments:2", "comments", "projects"].map(|topic| (topic.to_owned(), position(1)));
    let mut cursor = Cursor { positions: positions.into(), ..Cursor::default() };
    cursor.keep(&["comments:2".into(), "content".into()]);
    assert_eq!(cursor.topics().collect::<Vec<_>>(), ["comments", "comments:2"]);
}

#[test]
fn a_redis_whose_clock_is_behind_takes_the_proof_back() {
    let mut cursor = Cursor { at: 9_000, ..Cursor::default() };
    let mut told = |reason, at| {
        let positions = Positions::default();
        cursor.note(&NodeMessage::Resync { topics: Vec::new(), reason, spread_ms: 0, at, positions });
        cursor.at
    };
    assert_eq!(told(Reason::Gap, 8_000), 9_000, "what was told before stays true");
    assert_eq!(told(Reason::RedisChanged, 400), 400);
    assert_eq!(told(Reason::Gap, 500), 500);
    assert_eq!(told(Reason::Live, 450), 450);
}

proptest! {
    #[test]
    fn cursors_survive_the_way(at: u64, away: bool, late: u32, topics in proptest::collection::btree_map("[a-zä:%]{0,30}", any::<(u64, u64)>(), 0..20)) {
        let positions = topics.into_iter().map(|(topic, (epoch, seq))| {
            (topic, Position { lineage: Lineage::new("0123456789abcdef"), id: EntryId { epoch, seq } })
        });
        let cursor = Cursor { at, away, late, positions: positions.collect(), ..Cursor::default() };
        prop_assert_eq!(Cursor::read(&cursor.text()), Some(cursor));
    }

    #[test]
    fn garbage_is_never_a_panic(text in "[A-Za-z0-9_-]{0,200}", mut bytes: Vec<u8>) {
        let _ = Cursor::read(&text);
        bytes.insert(0, VERSION);
        let _ = Cursor::read(&BASE64_URL_SAFE_NO_PAD.encode(bytes));
    }
}

#[test]
fn live_events_are_named_where_the_positions_leave_room() {
    let areas = Areas::new(["comments"], [], []).unwrap();
    let event = crate::protocol::Event::parse(br#"{"type":"a.b"}"#.as_slice().into(), 99).unwrap();
    let frame = Frame::new(crate::protocol::Topic::parse("comments", &areas).unwrap(), None, 7, &event);
    let mut cursor = Cursor { at: 7, ..Cursor::default() };
    cursor.pass(&frame);
    assert_eq!(Cursor::read(&cursor.text()), Some(cursor.clone()));
    let since = |text: &str| Cursor::read(text).unwrap().resume().passed.unwrap().since(frame.digest());
    assert_eq!(since(&cursor.text()), Some(Some(7)));
    cursor.positions = (0..500).map(|n| (format!("comments:{n}"), position(n))).collect();
    assert!(cursor.text().len() <= MAX_LENGTH);
    assert_eq!(since(&cursor.text()), None, "it had some, and nobody can say which");
}

#[test]
fn names_of_live_events_end_with_the_clock_that_they_were_taken_by() {
    let areas = Areas::new(["comments"], [], []).unwrap();
    let event = crate::protocol::Event::parse(br#"{"type":"a.b"}"#.as_slice().into(), 99).unwrap();
    let topic = crate::protocol::Topic::parse("comments", &areas).unwrap();
    let frame = Frame::new(topic, None, 100_000, &event);
    let named = |reason| {
        let mut cursor = Cursor { at: 100_000, ..Cursor::default() };
        cursor.pass(&frame);
        let positions = Positions::default();
        cursor.note(&NodeMessage::Resync { at: 88_000, topics: Vec::new(), reason, positions, spread_ms: 0 });
        Cursor::read(&cursor.text()).unwrap().resume().passed.unwrap().since(frame.digest())
    };
    assert_eq!(named(Reason::RedisChanged), Some(None), "a later one of this content is another one");
    assert_eq!(named(Reason::Live), Some(Some(100_000)));
}

#[test]
fn only_a_cursor_says_which_live_events_were_had() {
    let begun = |start| {
        let topics = vec!["comments".to_owned()];
        let request = StreamRequest { topics, start, cursor_in: CursorPlace::Query };
        request.begin().1.resume.unwrap().passed
    };
    let cursor = Cursor { at: 7, ..Cursor::default() };
    assert_eq!(begun(Start::GoOn(cursor.clone())), Some(Passed::default()));
    let record = Cursor::from_resume(&cursor.resume());
    assert_eq!(begun(Start::Resume(record)), None, "it may have had any of the latest");
}

#[test]
fn nor_does_the_cursor_of_who_came_without_one() {
    let record = Cursor { at: 100_000, ..Cursor::default() };
    let start = Start::Resume(Cursor::from_resume(&record.resume()));
    let topics = vec!["comments".to_owned()];
    let (mut cursor, _) = StreamRequest { topics, start, cursor_in: CursorPlace::Query }.begin();
    let (positions, reason) = (Positions::default(), Reason::Live);
    cursor.note(&NodeMessage::Resync { at: 100_000, topics: Vec::new(), reason, positions, spread_ms: 0 });
    let since = |cursor: &Cursor| Cursor::read(&cursor.text()).unwrap().resume().passed.unwrap().since(5);
    assert_eq!(since(&cursor), None, "it may have had any of the latest");
    cursor.note(&NodeMessage::Pong { at: 141_000 });
    assert_eq!(since(&cursor), Some(None), "all of them are old");
}

#[test]
fn an_event_that_its_topic_began_behind_does_not_set_the_cursor_back() {
    let areas = Areas::new(["comments"], [], []).unwrap();
    let topic = crate::protocol::Topic::parse("comments:1", &areas).unwrap();
    let frame = |position: &Position| {
        let event = crate::protocol::Event::parse(br#"{"type":"a.b"}"#.as_slice().into(), 99).unwrap();
        Frame::new(topic.clone(), Some((position.lineage.clone(), position.id)), 7, &event)
    };
    let mut cursor = Cursor::default();
    cursor.positions.insert("comments:1".into(), position(6));
    let mut after = |position: Position| {
        cursor.pass(&frame(&position));
        cursor.positions["comments:1"].clone()
    };
    for seq in [7, 8] {
        assert_eq!(after(position(seq)), position(seq));
    }
    assert_eq!(after(position(3)), position(8), "it came by the whole area");
    let new: Position = "0123456789abcdef.1763700000001-1".parse().unwrap();
    assert_eq!(after(new.clone()), new, "a log that began anew");
    let other: Position = "fedcba9876543210.1763700000000-1".parse().unwrap();
    assert_eq!(after(other.clone()), other, "another history");
}

#[test]
fn events_of_a_whole_area_give_no_positions() {
    let areas = Areas::new(["comments"], [], []).unwrap();
    let mut cursor = Cursor::default();
    for key in 0..10_000 {
        let event = crate::protocol::Event::parse(br#"{"type":"a.b"}"#.as_slice().into(), 99).unwrap();
        let topic = crate::protocol::Topic::parse(&format!("comments:{key}"), &areas).unwrap();
        let Position { lineage, id } = position(key + 1);
        cursor.pass(&Frame::new(topic, Some((lineage, id)), 7, &event));
    }
    assert_eq!(cursor, Cursor { at: 7, ..Cursor::default() });
    assert!(cursor.text_for(CursorPlace::Body).len() < 100);
}

#[test]
fn a_topic_that_is_refused_keeps_no_position() {
    let refused = || crate::protocol::Refused {
        topic: "comments:1".into(),
        code: crate::protocol::RefusedCode::TooMany,
    };
    let mut cursor = Cursor::default();
    for topic in ["comments:1", "comments:2"] {
        cursor.positions.insert(topic.into(), position(6));
    }
    let positions = Positions::default();
    cursor.note(&NodeMessage::Subscribed { at: 7, positions, refused: vec![refused()] });
    assert_eq!(cursor.topics().collect::<Vec<_>>(), ["comments:2"]);
}
