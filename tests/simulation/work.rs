//! What a node asks of Redis, from the switch's question to the answer: several commands one after another, where the real
//! bus does so, each sent over the connection that keeps its order. What the link does not live to hear is asked once more
//! over the next, or given up after three seconds.

use carillon::{
    bus::{BusError, Sources},
    protocol::{Subject, Topic},
    relay::{Answer, FeedPlace, Question, Stamp},
};

use crate::{
    bus::{Link, Push, Told, Way, Work},
    redis::{Call, Reply},
    world::{Happening, World},
};

/// How long a question waits for a link, ms.
const PATIENCE: u64 = 3_000;

impl World {
    /// Starts what the switch has asked for.
    pub(crate) fn ask(&mut self, node: usize, stamp: Stamp, question: Question) {
        let bus = &mut self.nodes[node].bus;
        let work = match question {
            Question::Open(subjects) => {
                bus.wanted.extend(subjects.iter().cloned());
                Work::Open(stamp, subjects)
            }
            Question::Close(subjects) => {
                bus.wanted.retain(|subject| !subjects.contains(subject));
                Work::Close(stamp, subjects)
            }
            Question::Read { topic, after } => Work::Read(stamp, topic, after),
            Question::Marks => Work::Marks(stamp),
            Question::Mark { area, ahead } => Work::Mark(stamp, area, ahead.as_millis() as u64),
            Question::Look { places, renew } => Work::Look(stamp, places, renew),
            Question::Heads(places) => Work::Heads(stamp, places),
            // No publisher vouches for itself here: who is late has no part in what is delivered.
            Question::Sources(_) => {
                return self.answered(node, stamp, Answer::Sources(Ok(Sources::default())));
            }
        };
        self.begin(node, work);
    }

    /// Sends a piece of work over the link, or leaves it for the next one.
    pub(crate) fn begin(&mut self, node: usize, work: Work) {
        let work = match work {
            Work::OpenHeads(stamp, outcomes)
                if !outcomes.iter().any(|(s, o)| o.is_ok() && matches!(s, Subject::Topic(_))) =>
            {
                let opened = outcomes.into_iter().map(|(s, o)| (s, o.map(|()| None))).collect();
                return self.answered(node, stamp, Answer::Opened(opened));
            }
            Work::Look(stamp, places, renew) if places.is_empty() => {
                Work::LookMarks(stamp, Vec::new(), renew)
            }
            Work::Heads(stamp, places) if places.is_empty() => {
                return self.answered(node, stamp, Answer::Heads(Vec::new()));
            }
            work => work,
        };
        let now = self.now;
        let attached = self.nodes[node].bus.link.as_ref().is_some_and(|link| link.attached);
        if !attached && !matches!(work, Work::Attach | Work::Orders(_)) {
            match work {
                // Subscribed to with the next link.
                Work::Open(stamp, subjects) => {
                    let outcomes = subjects.into_iter().map(|subject| (subject, Ok(()))).collect();
                    self.begin(node, Work::OpenHeads(stamp, outcomes));
                }
                Work::Close(stamp, _) => self.answered(node, stamp, Answer::Closed),
                work => {
                    let until = now + PATIENCE;
                    self.nodes[node].bus.parked.push((until, work));
                    self.at(until, Happening::Parked { node });
                }
            }
            return;
        }
        let way = match work {
            Work::Open(..) | Work::Close(..) | Work::Attach | Work::Compare(_) => Way::PushesUp,
            Work::Read(..) => Way::ReadsUp,
            _ => Way::CommandsUp,
        };
        let Some(link) = &mut self.nodes[node].bus.link else { return };
        link.next += 1;
        let (id, number) = (link.next, link.number);
        link.asked.insert(id, (now, work.clone()));
        let at = self.arrival(node, way);
        self.at(at, Happening::AtRedis { node, link: number, id, work });
    }

    /// When something that is sent now arrives: behind everything that was sent the same way before.
    pub(crate) fn arrival(&mut self, node: usize, way: Way) -> u64 {
        let delay = self.delay();
        let now = self.now;
        let bus = &mut self.nodes[node].bus;
        let slow = bus.late(way, now);
        let Some(link) = &mut bus.link else { return now };
        let last = &mut link.last[way as usize];
        // Behind what was on its way when it became deaf, and is heard as soon as it is not any more.
        *last = (*last).max(now + delay + slow).max(bus.deaf + 1);
        *last
    }

    /// Whether a link hears nothing at present; then what has arrived is looked at again later.
    pub(crate) fn is_deaf(&self, node: usize) -> Option<u64> {
        let until = self.nodes[node].bus.deaf;
        (until > self.now).then_some(until)
    }

    /// A command has reached Redis.
    pub(crate) fn at_redis(&mut self, node: usize, number: u64, id: u64, work: &Work) {
        let alive = self.nodes[node].bus.link.as_ref().is_some_and(|link| link.number == number);
        if !alive && self.chance(0.5) {
            // Lost with the connection. Otherwise it takes effect, and nobody hears of it.
            return;
        }
        let told = match work {
            Work::Open(_, subjects) => self.subscribe(node, number, subjects.clone()),
            Work::Orders(task) => self.order_at_redis(task),
            Work::Attach => {
                let wanted = self.nodes[node].bus.wanted.iter().cloned().collect();
                self.link(node, number).into_iter().for_each(|link| link.listens = true);
                self.subscribe(node, number, wanted)
            }
            Work::Close(_, subjects) => {
                self.audit_closed(node, subjects);
                if let Some(link) = self.link(node, number) {
                    link.subscribed.retain(|subject| !subjects.contains(subject));
                    link.since.retain(|subject, _| !subjects.contains(subject));
                }
                Told::Done
            }
            Work::Compare(expected) => {
                Told::Agrees(self.link(node, number).is_some_and(|link| link.subscribed == *expected))
            }
            Work::Time(_) => {
                self.redis.pass(self.redis_clock());
                Told::Time(self.redis.clock)
            }
            Work::Send(round, at) => {
                self.push(node, number, Push::Probe(*round, *at));
                Told::Done
            }
            work => Told::Replied(self.call(node, number, work)),
        };
        if let (Work::LookRenew(..), Told::Replied(Ok(_))) = (work, &told) {
            self.audit_renewed(node, number);
        }
        if let (Work::Marks(_), Told::Replied(Ok(_))) = (work, &told) {
            self.excuse_who_comes(node);
        }
        let down = match work {
            Work::Open(..) | Work::Close(..) | Work::Attach | Work::Compare(_) => Way::PushesDown,
            Work::Read(..) => Way::ReadsDown,
            _ => Way::CommandsDown,
        };
        if self.link(node, number).is_some() {
            let at = self.arrival(node, down);
            self.at(at, Happening::Told { node, link: number, id, told });
        }
    }

    fn call(&mut self, node: usize, number: u64, work: &Work) -> Result<Reply, String> {
        let topics = |places: &[FeedPlace]| places.iter().map(|place| place.topic.clone()).collect();
        let call = match work {
            Work::OpenHeads(_, outcomes) => Call::Heads(openable(outcomes)),
            Work::Read(_, topic, after) => Call::History(topic.clone(), *after),
            Work::Marks(_) | Work::LookMarks(..) => Call::Marks,
            Work::Mark(_, area, ahead) => Call::Mark(vec![area.clone()], *ahead),
            Work::LookRenew(_, _, areas) => Call::Mark(areas.clone(), 2_000),
            Work::Look(_, places, _) | Work::Heads(_, places) => Call::Heads(topics(places)),
            _ => Call::Probe,
        };
        let reply = match self.redis_call(&call) {
            Err(error) if error.starts_with("NOPERM") => self.call_alone(call, error),
            reply => reply,
        };
        if let (Work::Probe(round), Ok(Reply::Probe(_, at))) = (work, &reply) {
            self.push(node, number, Push::Probe(*round, *at));
        }
        reply
    }

    /// It does not say which topic it refuses: each is asked for alone.
    fn call_alone(&mut self, call: Call, error: String) -> Result<Reply, String> {
        let Call::Heads(topics) = call else { return Err(error) };
        let lineage = self.redis.lineage.clone();
        let heads = topics.into_iter().map(|topic| match self.redis_call(&Call::Heads(vec![topic])) {
            Ok(Reply::Heads(_, tops)) => tops.first().copied().ok_or_else(|| error.clone()),
            _ => Err(error.clone()),
        });
        Ok(Reply::SomeHeads(lineage, heads.collect()))
    }

    pub(crate) fn link(&mut self, node: usize, number: u64) -> Option<&mut Link> {
        self.nodes[node].bus.link.as_mut().filter(|link| link.number == number)
    }

    /// Subscribes; the refused ones are left out.
    fn subscribe(&mut self, node: usize, number: u64, subjects: Vec<Subject>) -> Told {
        let (denied, now) = (self.redis.denied.clone(), self.now);
        let allowed = |subject: &Subject| !matches!(subject, Subject::Topic(topic) if denied.contains(topic));
        let taken: Vec<Subject> = subjects.into_iter().filter(allowed).collect();
        if let Some(link) = self.link(node, number) {
            link.subscribed.extend(taken.iter().cloned());
            for subject in &taken {
                link.since.entry(subject.clone()).or_insert(now);
            }
        }
        // Whoever came while there was no link waits for this.
        self.excuse_sent_before(node);
        Told::Subscribed(taken)
    }
}
fn openable(outcomes: &[(Subject, Result<(), BusError>)]) -> Vec<Topic> {
    let topic = |(subject, outcome): &(Subject, Result<(), BusError>)| match (subject, outcome) {
        (Subject::Topic(topic), Ok(())) => Some(topic.clone()),
        _ => None,
    };
    outcomes.iter().filter_map(topic).collect()
}
