//! What the bus has answered, and what becomes of it.

use super::{Switch, Turn};
use crate::{
    bus::{BusError, Head, History, Marks},
    hub::RoomId,
    mutant,
    protocol::{EntryId, Reason, Subject, Topic},
    relay::{
        area_progress::AreaVerdict,
        feed::Arrival,
        feeds::{Opened, Read},
        log::LogEntry,
        question::{Answer, FeedPlace, Stamp, is_refusal},
        status,
    },
};

/// Heads, each with the topic that it was asked for.
type Heads = Vec<(FeedPlace, Result<Head, BusError>)>;

impl Switch {
    pub(super) fn take_answer(&mut self, stamp: Stamp, answer: Answer) {
        match answer {
            Answer::Opened(results) => self.take_opened(stamp, results),
            Answer::Closed => drop(self.interest.answered(stamp)),
            Answer::Read { topic, after, history } => self.take_read(stamp, &topic, after, history),
            Answer::Marks(marks) => {
                let ids = self.joins.take_marks(stamp, marks, &self.marks, self.turn.now.instant);
                self.attempt(ids);
            }
            Answer::Marked { area, marks } => self.take_marked(stamp, &area, marks),
            Answer::Looked { heads, marks } => {
                let heads = self.by_name(heads, mutant::is("look-names"));
                self.take_looked(stamp, heads, marks);
            }
            Answer::Sources(read) => {
                if self.sources.take(stamp, read, self.turn.now.instant) {
                    status::tell_late(&self.hub, &self.link, &self.sources);
                }
            }
            Answer::Heads(heads) => {
                let heads = self.by_name(heads, mutant::is("head-names"));
                let (replaced, astray) = self.head_check.take(stamp, heads, &self.hub, &self.feeds);
                for room in astray {
                    self.link.doubt(room, &mut self.feeds);
                }
                for (room, head) in replaced {
                    // A log never shrinks: what came beyond its end was published by hand, and never in it.
                    let same = self.feeds.top(room).is_some_and(|top| top.epoch == head.top.epoch);
                    let reason = if same { Reason::Invalid } else { Reason::LogReplaced };
                    self.feeds.restart(room, head, reason);
                    if let Some(topic) = self.topic_of(room) {
                        self.follow(room, &topic, Arrival::Replaced(reason), false);
                        self.wake(room);
                    }
                }
            }
        }
    }

    /// Each head with the topic that it names. `nameless`: as if it named none, so that the first belongs to the first topic
    /// that is still followed (only a test takes the names away).
    fn by_name(&self, heads: Heads, nameless: bool) -> Heads {
        if !nameless {
            return heads;
        }
        let (places, heads): (Vec<_>, Vec<_>) = heads.into_iter().unzip();
        let followed = |place: &FeedPlace| self.hub.find_topic(&place.topic).is_some();
        places.into_iter().filter(followed).zip(heads).collect()
    }

    fn take_opened(&mut self, stamp: Stamp, results: Vec<(Subject, Result<Option<Head>, BusError>)>) {
        if !self.interest.answered(stamp) {
            // The link was lost meanwhile: they are asked for again.
            return;
        }
        let latest = self.turn.questions.latest();
        let (mut opened, mut refused) = (Vec::new(), Vec::new());
        for (subject, head) in results {
            let Some(room) = self.hub.find(&subject) else { continue };
            if let Err(error) = &head {
                self.turn.say_refused(&subject, error);
            }
            match self.feeds.opened(room, head, (stamp, latest)) {
                Opened::Live => opened.push((room, subject)),
                Opened::Doubtful => self.link.doubt(room, &mut self.feeds),
                Opened::Refused => refused.push(room),
                Opened::Nothing => {}
            }
        }
        for (room, subject) in &opened {
            if let Subject::Topic(topic) = subject {
                self.release(*room, topic);
            }
        }
        // A join of several begins behind what was held of each. Joins that were answered already go on without those that are refused.
        self.wake_all(opened.into_iter().map(|(room, _)| room).chain(refused));
    }

    fn take_read(&mut self, stamp: Stamp, topic: &Topic, after: EntryId, history: Result<History, BusError>) {
        let Some(room) = self.hub.find_topic(topic) else {
            return self.feeds.forget_read(stamp);
        };
        let history = match history {
            Ok(history) => history,
            Err(error) => {
                if let Some(others) = self.turn.complaints.unread.due(self.turn.now.instant) {
                    tracing::warn!(topic = %topic, %error, others, "the log of a topic cannot be read; trying again");
                }
                if self.feeds.give_up_reading(room, stamp, &error) {
                    self.joins.read_failed(room);
                    if !self.feeds.is_live(room) {
                        self.link.look_again([room].into_iter(), self.turn.now.instant);
                        if is_refusal(&error) {
                            self.tell_away(vec![room]);
                        }
                    }
                }
                return;
            }
        };
        let (at, now) = (self.link.at(), self.turn.now.instant);
        let filling = !self.feeds.is_live(room);
        let read = Read { topic, after: after.seq, stamp };
        let Some((entries, verdict)) = self.feeds.take_read(room, &read, history, at, now) else { return };
        if filling {
            self.turn.metrics.backfilled.inc_by(entries.len() as u64);
        }
        let every = self.hub.every(topic);
        let mut waiting = 0;
        for (id, event) in entries {
            self.flush_beyond(&mut waiting, event.as_ref());
            self.hand(every, room, topic, (id, event.clone()));
            let arrival = self.feeds.arrive(room, topic, (id, event), at, now);
            self.follow(room, topic, arrival, false);
        }
        let replaced = matches!(verdict, Arrival::Replaced(_));
        let (first, last) = if replaced { (verdict, Arrival::Nothing) } else { (Arrival::Nothing, verdict) };
        self.follow(room, topic, first, false);
        self.release(room, topic);
        self.wake(room);
        if matches!(last, Arrival::Invalid) {
            self.say_not_in_log(topic);
            // While the wrong end was believed, real entries looked like duplicates and were dropped.
            self.doubt_every(topic);
        }
        self.follow(room, topic, last, false);
    }

    /// Hands an entry that a read has brought to followers of the whole area too: its message may come only when nobody follows the
    /// topic any more.
    fn hand(&mut self, every: Option<RoomId>, room: RoomId, topic: &Topic, entry: LogEntry) {
        if mutant::is("wire-twice") {
            return;
        }
        match (self.feeds.hand(room, entry.0), every) {
            (AreaVerdict::Pass, Some(every)) => self.pass_every(every, topic, Some(room), entry, false),
            (AreaVerdict::Gap, _) => self.doubt_every(topic),
            _ => {}
        }
    }

    fn take_marked(&mut self, stamp: Stamp, area: &str, marks: Result<Marks, BusError>) {
        let now = self.turn.now.instant;
        let freed = self.marks.marked(stamp, area, marks, now, &mut self.turn.questions);
        let mut waiting = 0;
        for (topic, event) in freed.events {
            self.flush_beyond(&mut waiting, Some(&event));
            self.pass_live(&topic, &event, false);
        }
        if freed.withheld {
            self.tell_away(self.hub.rooms_of(area));
        }
        if freed.lost {
            self.hub.flush();
            self.resyncs.owe_area(&mut self.hub, area, Reason::Live);
        }
    }

    /// Tells those who follow one of these that they are not live: they may lack something that Redis does not give now.
    fn tell_away(&mut self, rooms: Vec<RoomId>) {
        if self.link.is_live() {
            status::tell_followers_away(rooms, &mut self.hub, &self.link, &self.sources);
        }
    }

    fn take_looked(&mut self, stamp: Stamp, heads: Heads, marks: Result<Marks, BusError>) {
        if self.marks.looked(stamp, &marks, &mut self.turn.questions) {
            return self.advance();
        }
        let Some(looked) = self.link.looked(stamp) else { return };
        let now = self.turn.now.instant;
        let failed = heads.iter().all(|(_, head)| head.is_err()) && !heads.is_empty();
        let marks = match marks {
            Ok(marks) if !failed || !looked.whole => marks,
            marks => {
                let head_error = heads.into_iter().find_map(|(_, head)| head.err());
                return self.look_failed(marks.err().or(head_error));
            }
        };
        if looked.whole {
            self.marks.relearn(&marks);
        } else {
            self.marks.learn(&marks);
        }
        let latest = self.turn.questions.latest();
        let (mut again, mut refused) = (Vec::new(), Vec::new());
        for (place, head) in heads {
            let Some(room) = self.hub.find_topic(&place.topic) else { continue };
            // In doubt again: another look comes.
            if self.link.is_doubtful(room) {
                continue;
            }
            let refuses = head.as_ref().is_err_and(is_refusal);
            if !self.take_head(room, &place, head, latest, &marks) {
                again.push(room);
                refused.extend(refuses.then_some(room));
            }
        }
        for room in looked.areas.iter().filter_map(|area| self.hub.find(area)).collect::<Vec<_>>() {
            self.feeds.follow_again(room, latest);
            self.resyncs.owe_all(&mut self.hub, room, Reason::Gap);
            self.owe_live(room, &marks);
            self.wake(room);
        }
        self.wake_all(again.iter().copied());
        if again.is_empty() {
            self.link.looked_well();
        } else {
            self.link.look_again(again.into_iter(), now);
            self.tell_away(refused);
        }
        if looked.whole {
            self.link.settle();
            let ids = self.joins.all();
            self.attempt(ids);
        }
    }

    /// Heads or marks could not be read: another look comes.
    fn look_failed(&mut self, error: Option<BusError>) {
        let refused = error.as_ref().is_some_and(is_refusal);
        let error = error.map(|error| error.to_string()).unwrap_or_default();
        tracing::warn!(error, "the heads of the followed topics cannot be read; trying again");
        let behind: Vec<RoomId> = self.feeds.behind().collect();
        self.link.look_at_all_again(behind.iter().copied(), self.turn.now.instant);
        if refused {
            for room in &behind {
                self.tell_withheld(*room);
            }
            self.tell_away(behind);
        }
    }

    /// Compares a topic with the end of its log; `false` where that could not be read.
    fn take_head(
        &mut self,
        room: RoomId,
        place: &FeedPlace,
        head: Result<Head, BusError>,
        latest: Stamp,
        marks: &Marks,
    ) -> bool {
        match head {
            Ok(head) => {
                let arrival = self.feeds.compare(room, &head, place.top, latest);
                self.follow(room, &place.topic, arrival, false);
                self.owe_live(room, marks);
                self.release(room, &place.topic);
                self.wake(room);
                true
            }
            Err(error) => {
                if let Some(others) = self.turn.complaints.unseen.due(self.turn.now.instant) {
                    tracing::warn!(topic = %place.topic, %error, others, "the head of a topic cannot be read; trying again");
                }
                self.feeds.fail(room, &error);
                if is_refusal(&error) {
                    self.tell_withheld(room);
                }
                false
            }
        }
    }

    /// Owes `resync` (`live`) to who follows a subject, where its area has had live events.
    fn owe_live(&mut self, room: RoomId, marks: &Marks) {
        if self.hub.subject(room).map(Subject::area).is_some_and(|area| marks.marks.contains_key(area)) {
            self.resyncs.owe_all(&mut self.hub, room, Reason::Live);
        }
    }
}

impl Turn {
    /// Logs that a topic cannot be followed, one line for many. Missing rights have a line of their own, so that a full memory does
    /// not hide them.
    fn say_refused(&mut self, subject: &Subject, error: &BusError) {
        let complaints = &mut self.complaints;
        let kind = if error.is_forbidden() { &mut complaints.forbidden } else { &mut complaints.refused };
        if let Some(others) = kind.due(self.now.instant) {
            tracing::warn!(topic = %subject, %error, others, "a topic cannot be followed; trying again");
        }
    }
}
