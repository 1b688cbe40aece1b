//! What followers of a whole area get of a log, by messages and by reads.

use super::*;

fn id(epoch: u64, seq: u64) -> EntryId {
    EntryId { epoch, seq }
}

/// Whether they get it.
fn first(handed: &mut AreaProgress, id: EntryId, end: Option<EntryId>, sight: LogSight, new: bool) -> bool {
    handed.by_wire(id, end, sight, new) == AreaVerdict::Pass
}

#[test]
fn what_a_read_brings_is_handed_on_where_it_follows_what_came() {
    let mut handed = AreaProgress::default();
    assert!(
        first(&mut handed, id(7, 4), None, LogSight::InStep, true)
            && first(&mut handed, id(7, 5), None, LogSight::InStep, true)
    );
    assert_eq!(
        [4, 5, 6, 7].map(|seq| handed.by_read(id(7, seq))),
        [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass, AreaVerdict::Pass]
    );
    let end = Some(id(7, 7));
    assert!(
        !first(&mut handed, id(7, 6), end, LogSight::InStep, true)
            && !first(&mut handed, id(7, 7), end, LogSight::InStep, true),
        "the read was sooner"
    );
    assert!(first(&mut handed, id(7, 8), end, LogSight::InStep, true));
}

#[test]
fn what_a_read_brings_is_not_handed_on_while_what_is_before_it_is_on_its_way() {
    let mut handed = AreaProgress::default();
    // The log was at number 7 when it was opened, and nothing has come since.
    assert_eq!(handed.by_read(id(7, 8)), AreaVerdict::Gap);
    assert_eq!(handed.by_read(id(7, 9)), AreaVerdict::Pass, "what came before was told");
    let end = Some(id(7, 9));
    assert!(
        [7, 8, 9].iter().all(|seq| !first(&mut handed, id(7, *seq), end, LogSight::InStep, true)),
        "nobody gets it after that"
    );
    assert!(first(&mut handed, id(7, 10), end, LogSight::InStep, true));
}

#[test]
fn what_was_told_is_not_handed_on_by_a_read_and_what_follows_it_is() {
    let mut handed = AreaProgress::default();
    assert!(first(&mut handed, id(7, 5), None, LogSight::InStep, true));
    handed.tell(id(7, 8));
    assert_eq!(
        [6, 7, 8, 9].map(|seq| handed.by_read(id(7, seq))),
        [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass]
    );
}

#[test]
fn what_came_before_the_log_was_known_is_not_handed_on_again() {
    let mut handed = AreaProgress::default();
    assert!(
        first(&mut handed, id(7, 9), None, LogSight::InStep, true)
            && first(&mut handed, id(7, 10), None, LogSight::InStep, true),
        "8 is lost"
    );
    handed.tell(id(7, 9));
    assert_eq!(
        [8, 9, 10, 11].map(|seq| handed.by_read(id(7, seq))),
        [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass]
    );
}

#[test]
fn another_log_is_counted_anew() {
    let mut handed = AreaProgress::default();
    assert!(first(&mut handed, id(7, 50), Some(id(7, 49)), LogSight::InStep, true));
    assert!(!first(&mut handed, id(8, 1), Some(id(7, 50)), LogSight::InStep, true), "its followers are told");
    handed.tell(id(8, 1));
    assert_eq!(handed.by_read(id(8, 2)), AreaVerdict::Pass);
    assert!(!first(&mut handed, id(7, 51), Some(id(8, 2)), LogSight::InStep, false), "late");
    assert!(
        !first(&mut handed, id(9, 51), Some(id(8, 2)), LogSight::InStep, false),
        "late, of a master whose clock was ahead"
    );
    assert!(
        !first(&mut handed, id(8, 2), Some(id(8, 2)), LogSight::InStep, true)
            && first(&mut handed, id(8, 3), Some(id(8, 2)), LogSight::InStep, true)
    );
}

#[test]
fn what_the_wire_may_still_bring_is_remembered_until_it_has_or_until_probes_have_overtaken_it() {
    let areas = crate::protocol::Areas::new(["comments"], [], []).unwrap();
    let topic = |name| Topic::parse(name, &areas).unwrap();
    let (one, other) = (topic("comments:1"), topic("comments:2"));
    let read = |seqs: &[u64]| {
        let mut handed = AreaProgress::default();
        assert!(first(&mut handed, id(7, 4), None, LogSight::InStep, true));
        for seq in seqs {
            assert_eq!(handed.by_read(id(7, *seq)), AreaVerdict::Pass);
        }
        handed
    };
    let mut early = EarlyProgress::default();
    early.leave(&one, &read(&[5, 6]));
    early.leave(&other, &read(&[]));
    assert_eq!(early.topics.len(), 1, "the wire has brought all of the other");
    early.prove();
    assert!(!early.by_wire(&one, id(7, 5)) && !early.by_wire(&one, id(7, 6)));
    assert!(early.by_wire(&one, id(7, 7)) && early.by_wire(&other, id(7, 5)));
    early.prove();
    assert!(early.topics.is_empty());
    early.leave(&one, &read(&[5]));
    let mut handed = early.take(&one);
    assert!(!first(&mut handed, id(7, 5), Some(id(7, 5)), LogSight::InStep, true) && early.topics.is_empty());
}

#[test]
fn a_message_with_a_number_that_no_log_has_holds_nothing_back_when_its_topic_was_left() {
    let areas = crate::protocol::Areas::new(["comments"], [], []).unwrap();
    let topic = Topic::parse("comments:1", &areas).unwrap();
    let mut handed = AreaProgress::default();
    assert!(first(&mut handed, id(7, 4), None, LogSight::InStep, true));
    assert_eq!(handed.by_read(id(7, 5)), AreaVerdict::Pass);
    assert!(
        !first(&mut handed, id(9, 1), Some(id(7, 5)), LogSight::InStep, false),
        "of another log: it shows nothing of this one"
    );
    let mut early = EarlyProgress::default();
    early.leave(&topic, &handed);
    assert!(early.by_wire(&topic, id(7, 900)) && early.by_wire(&topic, id(9, 1)), "published by hand");
    assert!(!early.by_wire(&topic, id(7, 5)), "the read was sooner");
    assert!(early.by_wire(&topic, id(7, 6)), "the next one");
    let mut handed = early.take(&topic);
    assert!(
        !first(&mut handed, id(7, 5), None, LogSight::InStep, true)
            && first(&mut handed, id(7, 6), None, LogSight::InStep, true)
    );
    assert_eq!(handed.by_read(id(7, 7)), AreaVerdict::Pass);
}

#[test]
fn a_number_by_hand_hides_nothing_once_the_topic_was_refused() {
    let mut handed = AreaProgress::default();
    handed.tell(id(7, 900));
    handed.unfollow();
    handed.tell(id(7, 6));
    assert_eq!(handed.by_read(id(7, 7)), AreaVerdict::Pass);
}

#[test]
fn what_passed_while_the_log_was_not_known_does_not_come_again_after_a_number_by_hand() {
    let mut handed = AreaProgress::default();
    let passes = [6, 8, 9000].map(|seq| first(&mut handed, id(7, seq), None, LogSight::Unknown, true));
    assert_eq!(passes, [true; 3], "nobody knows yet what is by hand");
    handed.explain(id(7, 5), [id(7, 6), id(7, 8)].into_iter());
    assert_eq!(
        [7, 8, 9].map(|seq| handed.by_read(id(7, seq))),
        [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass]
    );
}

#[test]
fn what_passes_over_others_while_something_is_missing_is_a_gap_at_once() {
    for open in [false, true] {
        let mut handed = AreaProgress::default();
        let end = Some(id(7, 5));
        handed.tell(id(7, 7));
        if open {
            handed.withhold();
            assert!(handed.take_withheld());
        }
        let mut by_wire = |seq| handed.by_wire(id(7, seq), end, LogSight::Doubtful, false);
        assert_eq!(
            [8, 10, 11, 12].map(&mut by_wire),
            [AreaVerdict::Pass, AreaVerdict::Gap, AreaVerdict::Pass, AreaVerdict::Pass]
        );
        assert_eq!(
            [9, 10, 13].map(|seq| handed.by_read(id(7, seq))),
            [AreaVerdict::Nothing, AreaVerdict::Nothing, AreaVerdict::Pass]
        );
    }
}

#[test]
fn what_a_number_by_hand_has_hidden_is_told_once_the_log_is_in_step() {
    let mut handed = AreaProgress::default();
    let mut by_wire = |seq| first(&mut handed, id(7, seq), Some(id(7, 5)), LogSight::Doubtful, false);
    assert!(by_wire(6) && by_wire(7) && !by_wire(7), "the first 7 is by hand");
    assert!(handed.take_hidden(id(7, 7)) && !handed.take_hidden(id(7, 7)));
    assert_eq!(handed.by_read(id(7, 8)), AreaVerdict::Pass);
}

#[test]
fn the_second_event_of_a_log_that_nobody_knew_is_a_gap() {
    for (seq, verdict) in [(1, AreaVerdict::Pass), (2, AreaVerdict::Gap)] {
        let mut handed = AreaProgress::default();
        handed.withhold();
        assert!(handed.take_withheld());
        let end = Some(id(7, 5));
        assert!(first(&mut handed, id(8, 1), end, LogSight::Doubtful, true));
        assert_eq!(handed.by_wire(id(9, seq), end, LogSight::Doubtful, true), verdict);
    }
}

#[test]
fn a_number_by_hand_does_not_stand_for_what_a_read_has_brought() {
    let mut handed = AreaProgress::default();
    assert!(first(&mut handed, id(7, 5), None, LogSight::InStep, true));
    assert_eq!(handed.by_read(id(7, 6)), AreaVerdict::Pass);
    assert!(first(&mut handed, id(7, 900), Some(id(7, 6)), LogSight::InStep, true));
    handed.unfollow();
    assert!(!first(&mut handed, id(7, 6), None, LogSight::Unknown, true), "it is only late");
}
