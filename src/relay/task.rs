//! The task that drives the switch: the only place in the relay that waits.
//!
//! It hands the switch what arrives, asks the bus what the switch wants to know (each question in a task of its own, so
//! that nothing here waits for Redis), and publishes what everybody may look at. It decides nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior},
};

use super::{
    Command, Shared,
    marks::{self, AHEAD},
    question::{Answer, FeedPlace, Now, Question, Stamp, SwitchInput},
    switch::{BATCH, Switch},
};
use crate::{
    bus::{Bus, BusError, BusEvent, Head, Marks},
    metrics::Metrics,
    protocol::{Subject, Topic},
    shutdown::Tasks,
};

/// Answers that may wait for the switch. Only the task that brings one waits for room.
const ANSWERS: usize = 1024;
/// From one read of the marks to the next, once `MARKS_AHEAD` came without a pause: where thousands come back at once, those who
/// come meanwhile share one. Together these allow 100 reads in any second: 20 at once, and 80 that keep their distance.
const MARKS_EVERY: Duration = Duration::from_micros(12_500);
/// Reads that need not keep their distance: who comes back while few others do does not wait.
const MARKS_AHEAD: u32 = 20;

/// The switch, and what is needed to drive it.
pub(super) struct SwitchTask {
    switch: Switch,
    bus: Bus,
    metrics: Metrics,
    shared: Arc<Shared>,
    tasks: Tasks,
    marks: Pace,
}

/// Reads of the marks: some at once, then with a distance.
#[derive(Debug, Default)]
struct Pace {
    /// When the reads that there were would all be over, had each kept its distance.
    even: Option<Instant>,
}

impl Pace {
    /// When the next may begin, if that is not now.
    fn next(&mut self, now: Instant) -> Option<Instant> {
        let even = self.even.map_or(now, |even| even.max(now)) + MARKS_EVERY;
        self.even = Some(even);
        let wait = (even - now).saturating_sub(MARKS_EVERY * MARKS_AHEAD);
        (!wait.is_zero()).then(|| now + wait)
    }
}

/// What the switch is given, in an order that it can rely on.
struct Inputs {
    events: mpsc::Receiver<BusEvent>,
    inbox: mpsc::Receiver<Command>,
    answered: mpsc::Receiver<(Stamp, Answer)>,
    tick: Interval,
    /// Answers whose turn has not come.
    held: VecDeque<(Stamp, Answer)>,
    /// How many events are still to come before them.
    before: usize,
}

/// The next thing that the switch is given.
enum Next {
    /// Events, in the batch.
    Events,
    Command(Command),
    Answer(Stamp, Answer),
    Tick,
}

impl Inputs {
    fn new(
        events: mpsc::Receiver<BusEvent>,
        inbox: mpsc::Receiver<Command>,
        answered: mpsc::Receiver<(Stamp, Answer)>,
    ) -> Self {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { events, inbox, answered, tick, held: VecDeque::new(), before: 0 }
    }

    /// Waits for the next; `None` when the bus has ended.
    ///
    /// Events that had arrived before an answer come before it. It may have come over a new link, from another master: then
    /// the news that the old link is lost is among them, and messages of the old one, which have no lineage of their own.
    async fn next(&mut self, batch: &mut Vec<BusEvent>) -> Option<Next> {
        loop {
            if self.before == 0
                && let Some((stamp, answer)) = self.held.pop_front()
            {
                return Some(Next::Answer(stamp, answer));
            }
            let most = if self.held.is_empty() { BATCH } else { BATCH.min(self.before) };
            tokio::select! {
                count = self.events.recv_many(batch, most) => {
                    self.before = self.before.saturating_sub(count);
                    return (count > 0).then_some(Next::Events);
                }
                Some(command) = self.inbox.recv() => return Some(Next::Command(command)),
                Some(answer) = self.answered.recv(), if self.held.is_empty() => self.hold(answer),
                _ = self.tick.tick() => return Some(Next::Tick),
            }
        }
    }

    /// Lets an answer, and all that are there with it, wait for the events that are there.
    fn hold(&mut self, answer: (Stamp, Answer)) {
        self.held.push_back(answer);
        while let Ok(another) = self.answered.try_recv() {
            self.held.push_back(another);
        }
        self.before = self.events.len();
    }
}

impl SwitchTask {
    /// Drives this switch.
    pub(super) fn new(switch: Switch, bus: Bus, metrics: Metrics, shared: Arc<Shared>, tasks: Tasks) -> Self {
        Self { switch, bus, metrics, shared, tasks, marks: Pace::default() }
    }

    /// Runs until the node ends, or the bus cannot go on: then `fatal` says why.
    pub(super) async fn run(
        mut self,
        events: mpsc::Receiver<BusEvent>,
        inbox: mpsc::Receiver<Command>,
        fatal: oneshot::Sender<String>,
    ) {
        let (answers, answered) = mpsc::channel(ANSWERS);
        let mut inputs = Inputs::new(events, inbox, answered);
        let mut batch = Vec::with_capacity(BATCH);
        while let Some(next) = inputs.next(&mut batch).await {
            let now = match next {
                Next::Events => {
                    let now = self.take(SwitchInput::Events(&mut batch));
                    self.metrics.delivery_latency.observe(now.instant.elapsed().as_secs_f64());
                    now
                }
                Next::Command(command) => self.take(SwitchInput::Command(command)),
                Next::Answer(stamp, answer) => self.take(SwitchInput::Answer(stamp, answer)),
                Next::Tick => self.take(SwitchInput::Tick { chance: rand::random() }),
            };
            let out = self.switch.end_turn(now);
            self.shared.at.store(self.switch.at(), Ordering::Release);
            self.shared.live.store(self.switch.is_live(), Ordering::Release);
            for (stamp, question) in out.questions {
                self.ask(stamp, question, answers.clone());
            }
            if let Some(reason) = out.fatal {
                let _ = fatal.send(reason);
                return;
            }
        }
    }

    fn take(&mut self, input: SwitchInput<'_>) -> Now {
        let now = Now::read();
        self.switch.take(input, now);
        now
    }

    fn ask(&mut self, stamp: Stamp, question: Question, answers: mpsc::Sender<(Stamp, Answer)>) {
        let bus = self.bus.clone();
        let due = matches!(question, Question::Marks).then(|| self.marks.next(Instant::now())).flatten();
        self.tasks.spawn_until_end(async move {
            if let Some(due) = due {
                tokio::time::sleep_until(due).await;
            }
            let answer = ask(&bus, question).await;
            // The switch is gone only when the node ends.
            let _ = answers.send((stamp, answer)).await;
        });
    }
}

/// Asks the bus a question.
async fn ask(bus: &Bus, question: Question) -> Answer {
    match question {
        Question::Open(subjects) => Answer::Opened(open(bus, subjects).await),
        Question::Close(subjects) => {
            bus.unsubscribe(subjects).await;
            Answer::Closed
        }
        Question::Read { topic, after } => {
            let history = bus.history(topic.clone(), after).await;
            Answer::Read { topic, after, history }
        }
        Question::Marks => Answer::Marks(bus.marks().await),
        Question::Mark { area, ahead } => {
            let marks = bus.mark(vec![area.clone()], ahead).await;
            Answer::Marked { area, marks }
        }
        Question::Look { places, renew } => {
            let heads = heads(bus, places).await;
            let marks = if renew { renew_marks(bus).await } else { bus.marks().await };
            Answer::Looked { heads, marks }
        }
        Question::Heads(places) => Answer::Heads(heads(bus, places).await),
        Question::Sources(lost) => Answer::Sources(bus.sources(lost).await),
    }
}

async fn open(bus: &Bus, subjects: Vec<Subject>) -> Vec<(Subject, Result<Option<Head>, BusError>)> {
    let subscribed = bus.subscribe(subjects.clone()).await;
    let confirmed = subjects.iter().zip(&subscribed).filter(|(_, result)| result.is_ok());
    let topics = confirmed.filter_map(|(subject, _)| match subject {
        Subject::Topic(topic) => Some(FeedPlace { topic: topic.clone(), top: None }),
        Subject::Every(_) => None,
    });
    let mut heads = heads(bus, topics.collect()).await.into_iter();
    let opened = subjects.into_iter().zip(subscribed).map(|(subject, result)| {
        let head = result.and_then(|()| match subject {
            Subject::Every(_) => Ok(None),
            Subject::Topic(_) => heads.next().map(|(_, head)| head).transpose(),
        });
        (subject, head)
    });
    opened.collect()
}

/// A head for each place, in order.
async fn heads(bus: &Bus, places: Vec<FeedPlace>) -> Vec<(FeedPlace, Result<Head, BusError>)> {
    let topics: Vec<Topic> = places.iter().map(|place| place.topic.clone()).collect();
    let heads = bus.heads(topics).await;
    places.into_iter().zip(heads).collect()
}

/// All marks, renewed: sessions that are away or at another node now will be told, too.
async fn renew_marks(bus: &Bus) -> Result<Marks, BusError> {
    let marks = bus.marks().await?;
    let areas = marks::to_renew(&marks);
    if areas.is_empty() { Ok(marks) } else { bus.mark(areas, AHEAD).await }
}

#[cfg(test)]
mod tests {
    use super::{super::question::Questions, *};
    use crate::hub::Outbox;

    #[tokio::test]
    async fn what_arrived_before_an_answer_comes_before_it() {
        for round in 0..100 {
            let (arrive, events) = mpsc::channel(1_000);
            let (_inbox, inbox) = mpsc::channel(1);
            let (answer, answered) = mpsc::channel(1);
            let mut inputs = Inputs::new(events, inbox, answered);
            let before = BATCH * 2 + round;
            for _ in 0..before {
                arrive.try_send(BusEvent::Doubt(None)).unwrap();
            }
            let stamp = Questions::default().ask(Question::Marks);
            answer.try_send((stamp, Answer::Closed)).unwrap();
            let (mut batch, mut taken) = (Vec::new(), 0);
            loop {
                match inputs.next(&mut batch).await {
                    Some(Next::Events) => taken += batch.drain(..).len(),
                    Some(Next::Answer(..)) => break,
                    _ => {}
                }
                assert!(taken <= before, "nothing waits for what comes later");
            }
            assert_eq!(taken, before);
            arrive.try_send(BusEvent::Doubt(None)).unwrap();
            while !matches!(inputs.next(&mut batch).await, Some(Next::Events)) {}
        }
    }

    #[tokio::test]
    async fn while_answers_wait_sessions_are_heard_and_the_next_answers_wait_with_them() {
        // Far more turns than the chance of the select! needs to hear them all.
        let most = 500;
        let (arrive, events) = mpsc::channel(BATCH * most);
        let (ask, inbox) = mpsc::channel(100);
        let (answer, answered) = mpsc::channel(100);
        let mut inputs = Inputs::new(events, inbox, answered);
        let (backlog, asked) = (BATCH * most, 20);
        for _ in 0..backlog {
            arrive.try_send(BusEvent::Doubt(None)).unwrap();
        }
        for _ in 0..asked {
            let stamp = Questions::default().ask(Question::Marks);
            answer.try_send((stamp, Answer::Closed)).unwrap();
            ask.try_send(Command::Ping(Outbox::pulled(1))).unwrap();
        }
        let (mut batch, mut turns, mut heard, mut answers) = (Vec::new(), 0, 0, 0);
        while answers < asked {
            match inputs.next(&mut batch).await {
                Some(Next::Events) => turns += batch.drain(..).len().div_ceil(BATCH),
                Some(Next::Command(_)) => heard += 1,
                Some(Next::Answer(..)) => answers += 1,
                Some(Next::Tick) | None => {}
            }
            assert!(turns < most || heard == asked, "{heard} of {asked} commands in {turns} turns");
        }
        assert_eq!(turns, most, "all answers waited for the same events");
    }

    #[test]
    fn some_reads_of_marks_begin_at_once_and_then_they_keep_their_distance() {
        let (mut pace, began) = (Pace::default(), Instant::now());
        for read in 0..MARKS_AHEAD {
            assert_eq!(pace.next(began), None, "read {read} of those at once");
        }
        assert_eq!(pace.next(began), Some(began + MARKS_EVERY));
        assert_eq!(
            pace.next(began + MARKS_EVERY / 2),
            Some(began + MARKS_EVERY * 2),
            "behind one that waits"
        );
        let later = began + MARKS_EVERY * 4;
        assert_eq!(pace.next(later), None, "after a pause");
        assert_eq!(pace.next(later), None, "and one more, for the rest of the pause");
        assert_eq!(pace.next(later), Some(later + MARKS_EVERY));
    }

    #[test]
    fn no_second_has_more_than_a_hundred_reads_of_marks() {
        // Whoever asks always, whoever paused, and whoever asks now and then.
        for every in [0, 1, 7, 11, 12, 13, 40] {
            let (mut pace, began) = (Pace::default(), Instant::now());
            let reads: Vec<Instant> = (0..1000)
                .map(|n| began + Duration::from_millis(n * every))
                .map(|now| pace.next(now).unwrap_or(now))
                .collect();
            let fullest = reads.iter().map(|first| {
                reads.iter().filter(|read| (*first..*first + Duration::from_secs(1)).contains(read)).count()
            });
            assert!(fullest.max() <= Some(100), "one each {every} ms");
        }
    }
}
