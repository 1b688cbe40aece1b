//! What Redis' replies lead to: the next command of a question that needs several, or the answer to the switch.

use carillon::{
    bus::{BusError, Head, History, Marks},
    protocol::{Event, Subject},
    relay::{Answer, FeedPlace, Stamp, to_renew},
};

use crate::{
    bus::{Told, Work},
    orders::Task,
    redis::{Entry, Reply},
    world::World,
};

/// Outcomes of heads, each with the place that it was asked for.
type Heads = Vec<(FeedPlace, Result<Head, BusError>)>;

fn away() -> BusError {
    BusError::Away("no link".into())
}

impl World {
    /// A node has heard what Redis says to a piece of work.
    pub(crate) fn told(&mut self, node: usize, number: u64, id: u64, told: Told) {
        let Some(link) = self.nodes[node].bus.link.as_mut().filter(|link| link.number == number) else {
            return;
        };
        let Some((_, work)) = link.asked.remove(&id) else { return };
        let known = link.lineage.clone();
        if let Told::Replied(Ok(
            Reply::Heads(lineage, _)
            | Reply::SomeHeads(lineage, _)
            | Reply::History(lineage, ..)
            | Reply::Probe(lineage, _),
        )) = &told
            && *lineage != known
        {
            // The question goes on over the next link.
            link.asked.insert(id, (0, work));
            return self.lose_link(node, true);
        }
        match (work, told) {
            (Work::Attach, Told::Subscribed(taken)) => self.attached(node, &taken),
            (Work::Compare(_), Told::Agrees(false)) => {
                self.begin(node, Work::Attach);
                self.event(node, carillon::bus::BusEvent::Doubt(None));
                self.audit.doubtful = self.audit.doubtful.max(self.now);
                self.nodes[node].bus.link.iter_mut().for_each(|link| link.unmarked = true);
            }
            (Work::Open(stamp, subjects), Told::Subscribed(taken)) => {
                let outcome = |subject: &Subject| {
                    if taken.contains(subject) { Ok(()) } else { Err(BusError::Refused("NOPERM".into())) }
                };
                let outcomes: Vec<_> = subjects.into_iter().map(|s| (s.clone(), outcome(&s))).collect();
                for (subject, _) in outcomes.iter().filter(|(_, outcome)| outcome.is_err()) {
                    self.nodes[node].bus.wanted.remove(subject);
                }
                self.begin(node, Work::OpenHeads(stamp, outcomes));
            }
            (Work::Close(stamp, _), _) => self.answered(node, stamp, Answer::Closed),
            (Work::Probe(round), Told::Replied(Ok(_))) | (Work::Send(round, _), _) => {
                self.accepted(node, number, round);
            }
            (Work::Probe(round), Told::Replied(Err(_))) => self.begin(node, Work::Time(round)),
            (Work::Time(round), Told::Time(at)) => self.begin(node, Work::Send(round, at)),
            (Work::Orders(task), Told::Orders(said)) => self.order_told(node, task, said),
            (work, Told::Replied(reply)) => self.finish(node, work, reply.map_err(BusError::Refused)),
            _ => {}
        }
    }

    /// Everything wanted is subscribed to, but for what Redis refuses: the link serves commands, and a probe proves it.
    fn attached(&mut self, node: usize, taken: &[Subject]) {
        let wanted = self.nodes[node].bus.wanted.iter();
        let refused: Vec<Subject> = wanted.filter(|subject| !taken.contains(subject)).cloned().collect();
        for subject in refused {
            self.nodes[node].bus.wanted.remove(&subject);
            self.event(node, carillon::bus::BusEvent::Refused(subject));
        }
        let attached = self.nodes[node].bus.link.as_ref().is_some_and(|link| link.attached);
        if self.has_people() && !attached {
            // Orders are listened to by now, and nothing is delivered yet: none falls in between.
            return self.begin(node, Work::Orders(Task::Change(true)));
        }
        self.serve_commands(node);
    }

    /// The link can be used, and a probe proves it.
    pub(crate) fn serve_commands(&mut self, node: usize) {
        let Some(link) = &mut self.nodes[node].bus.link else { return };
        if link.attached {
            return;
        }
        link.attached = true;
        let number = link.number;
        for (_, work) in std::mem::take(&mut self.nodes[node].bus.parked) {
            self.begin(node, work);
        }
        self.probe(node, number);
    }

    fn accepted(&mut self, node: usize, number: u64, round: u64) {
        if let Some(link) =
            self.nodes[node].bus.link.as_mut().filter(|link| link.number == number && link.round == round)
        {
            link.accepted = true;
            self.proven(node, number);
        }
    }

    /// Questions that have waited too long for a link are answered so.
    pub(crate) fn give_up_parked(&mut self, node: usize) {
        let now = self.now;
        let parked = std::mem::take(&mut self.nodes[node].bus.parked);
        let (due, left): (Vec<_>, Vec<_>) = parked.into_iter().partition(|(until, _)| *until <= now);
        self.nodes[node].bus.parked = left;
        for (_, work) in due {
            self.finish(node, work, Err(away()));
        }
    }

    /// Goes on with a question, or answers it.
    fn finish(&mut self, node: usize, work: Work, reply: Result<Reply, BusError>) {
        let answer: (Stamp, Answer) = match work {
            Work::OpenHeads(stamp, outcomes) => {
                let mut heads = heads(reply).map(Vec::into_iter);
                let opened = outcomes.into_iter().map(|(subject, outcome)| {
                    let head = outcome.and_then(|()| match (&subject, &mut heads) {
                        (Subject::Every(_), _) => Ok(None),
                        (Subject::Topic(_), Ok(heads)) => heads.next().ok_or_else(away)?.map(Some),
                        (Subject::Topic(_), Err(error)) => Err(error.clone()),
                    });
                    (subject, head)
                });
                (stamp, Answer::Opened(opened.collect()))
            }
            Work::Read(stamp, topic, after) => {
                (stamp, Answer::Read { topic, after, history: reply.and_then(history) })
            }
            Work::Marks(stamp) => (stamp, Answer::Marks(marks(reply))),
            Work::Mark(stamp, area, _) => (stamp, Answer::Marked { area, marks: marks(reply) }),
            Work::Heads(stamp, places) => (stamp, Answer::Heads(placed(places, heads(reply)))),
            Work::Look(stamp, places, renew) => {
                return self.begin(node, Work::LookMarks(stamp, placed(places, heads(reply)), renew));
            }
            Work::LookMarks(stamp, heads, renew) => match marks(reply) {
                Ok(marks) if renew && !marks.marks.is_empty() => {
                    return self.begin(node, Work::LookRenew(stamp, heads, to_renew(&marks)));
                }
                marks => (stamp, Answer::Looked { heads, marks }),
            },
            Work::LookRenew(stamp, heads, _) => (stamp, Answer::Looked { heads, marks: marks(reply) }),
            Work::Open(stamp, subjects) => {
                let outcomes = subjects.into_iter().map(|subject| (subject, Ok(()))).collect();
                return self.begin(node, Work::OpenHeads(stamp, outcomes));
            }
            Work::Close(stamp, _) => (stamp, Answer::Closed),
            Work::Attach
            | Work::Probe(_)
            | Work::Time(_)
            | Work::Send(..)
            | Work::Compare(_)
            | Work::Orders(_) => return,
        };
        self.answered(node, answer.0, answer.1);
    }
}

fn heads(reply: Result<Reply, BusError>) -> Result<Vec<Result<Head, BusError>>, BusError> {
    let (lineage, tops) = match reply? {
        Reply::Heads(lineage, tops) => (lineage, tops.into_iter().map(Ok).collect()),
        Reply::SomeHeads(lineage, tops) => (lineage, tops),
        _ => return Err(away()),
    };
    let head = |top: Result<_, String>| {
        top.map(|top| Head { lineage: lineage.clone(), top }).map_err(BusError::Refused)
    };
    Ok(tops.into_iter().map(head).collect())
}

fn placed(places: Vec<FeedPlace>, heads: Result<Vec<Result<Head, BusError>>, BusError>) -> Heads {
    match heads {
        Ok(heads) => places.into_iter().zip(heads).collect(),
        Err(error) => places.into_iter().map(|place| (place, Err(error.clone()))).collect(),
    }
}

fn history(reply: Reply) -> Result<History, BusError> {
    let Reply::History(lineage, top, entries) = reply else { return Err(away()) };
    let event = |(id, event): Entry| {
        (id, event.map_or_else(|| Event::parse(bytes::Bytes::from_static(b"?"), 99), Ok))
    };
    Ok(History { head: Head { lineage, top }, entries: entries.into_iter().map(event).collect() })
}

fn marks(reply: Result<Reply, BusError>) -> Result<Marks, BusError> {
    match reply? {
        Reply::Marks(now, marks) => Ok(Marks { now, marks }),
        _ => Err(away()),
    }
}
