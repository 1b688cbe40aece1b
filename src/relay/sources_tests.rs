//! Who is late, by values: reports, silence, clocks that are set, and a Redis that was away or lost everything.

use super::*;

/// Reads of a Redis whose clock need not go as this node's does.
struct SourcesRig {
    sources: LateSources,
    questions: Questions,
    now: Instant,
    redis: u64,
    list: Vec<Source>,
    lost: Vec<LostSource>,
}

impl SourcesRig {
    fn new() -> Self {
        let now = Instant::now();
        let sources = LateSources::new(Duration::from_secs(3600), Metrics::new(), now);
        Self {
            sources,
            questions: Questions::default(),
            now,
            redis: 1_700_000_000_000,
            list: Vec::new(),
            lost: Vec::new(),
        }
    }

    fn report(&mut self, name: &str, seconds: u64, oldest_ms: u64) {
        let until = if seconds == 0 { 0 } else { self.redis + seconds * 1000 };
        let since = if oldest_ms == 0 { 0 } else { self.redis - oldest_ms };
        self.list.retain(|source| source.name != name);
        self.list.push(Source { name: name.into(), until, since });
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.redis += seconds * 1000;
    }

    fn ask(&mut self) -> Stamp {
        self.pass(2);
        self.sources.tick(&mut self.questions, self.now);
        match self.questions.take().pop() {
            Some((stamp, Question::Sources(lost))) => {
                self.lost = lost;
                stamp
            }
            other => panic!("sources are not asked for: {other:?}"),
        }
    }

    /// One look, two seconds later: whether it changes who is late, and who is.
    fn look(&mut self) -> (bool, Vec<String>) {
        let stamp = self.ask();
        let read = Sources { now: self.redis, list: self.list.clone() };
        let changed = self.sources.take(stamp, Ok(read), self.now);
        let late = self.sources.shared().all().into_iter().filter(|source| source.late.is_some());
        (changed, late.map(|source| source.name).collect())
    }

    fn late(&mut self) -> Vec<String> {
        self.look().1
    }
}

#[test]
fn without_sources_nothing_is_said() {
    let mut rig = SourcesRig::new();
    assert_eq!(rig.look(), (false, Vec::new()));
    assert_eq!(rig.sources.told(), None);
}

#[test]
fn what_waits_for_more_than_ten_seconds_is_late_until_a_healthy_report() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 300, 5_000);
    assert_eq!(rig.look(), (false, Vec::new()));
    assert!(rig.sources.told().is_some_and(|late| late.is_empty()));
    rig.pass(6);
    let since = rig.list[0].since;
    assert_eq!(rig.look(), (true, vec!["cms".to_owned()]), "nobody has said that it was published");
    assert_eq!(rig.sources.shared().all()[0].late, Some(since));
    rig.report("cms", 300, 30_000);
    assert_eq!(rig.look(), (false, vec!["cms".to_owned()]), "told once");
    rig.report("cms", 300, 10_000 - 2_000);
    assert_eq!(rig.look(), (true, Vec::new()));
    rig.report("cms", 300, 0);
    rig.pass(100);
    assert!(rig.late().is_empty());
}

#[test]
fn who_falls_silent_is_late_until_a_report_or_a_good_bye() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 15, 0);
    rig.report("shop", 15, 0);
    assert!(rig.late().is_empty());
    rig.pass(10);
    assert!(rig.late().is_empty(), "vouched for");
    assert_eq!(rig.late(), ["cms", "shop"]);
    rig.report("cms", 15, 0);
    rig.report("shop", 0, 0);
    assert_eq!(rig.look(), (true, Vec::new()));
    assert_eq!(rig.sources.shared().all().len(), 1);
    rig.report("cms", 0, 0);
    assert_eq!(rig.look(), (false, Vec::new()));
    assert_eq!(rig.sources.told(), None, "nobody vouches for anything any more");
}

#[test]
fn a_node_that_starts_later_tells_as_well() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 15, 0);
    rig.report("old", 15, 0);
    rig.list[1].until -= 7_200_000;
    rig.pass(120);
    assert_eq!(rig.late(), ["cms"]);
    assert_eq!(rig.sources.shared().all().len(), 1, "what was silent for longer is forgotten");
}

#[test]
fn a_redis_that_is_away_makes_nobody_late() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 15, 0);
    rig.report("mute", 15, 11_000);
    assert_eq!(rig.late(), ["mute"]);
    rig.sources.interrupt();
    rig.pass(60);
    assert_eq!(rig.late(), ["mute"], "who was late before still is");
    rig.pass(5);
    assert_eq!(rig.late(), ["mute"], "time to report");
    rig.pass(5);
    assert_eq!(rig.late(), ["cms", "mute"]);
    rig.report("cms", 15, 0);
    assert_eq!(rig.late(), ["mute"]);
    // It refuses to tell, as it refuses reports while it takes no writes.
    let stamp = rig.ask();
    assert!(!rig.sources.take(stamp, Err(BusError::Refused("NOREPLICAS".into())), rig.now));
    rig.pass(60);
    assert_eq!(rig.late(), ["mute"]);
    rig.report("cms", 15, 0);
    rig.pass(12);
    assert_eq!(rig.late(), ["mute"]);
}

#[test]
fn an_answer_over_a_link_that_is_lost_says_nothing() {
    let mut rig = SourcesRig::new();
    let stamp = rig.ask();
    rig.sources.interrupt();
    rig.report("cms", 15, 60_000);
    let read = Sources { now: rig.redis, list: rig.list.clone() };
    assert!(!rig.sources.take(stamp, Ok(read), rig.now));
    assert!(rig.sources.shared().all().is_empty());
}

#[test]
fn clocks_that_are_set_make_nobody_late_and_hide_nobody() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 15, 0);
    assert!(rig.late().is_empty());
    rig.redis += 3_600_000;
    assert!(rig.late().is_empty(), "the same report");
    rig.report("cms", 15, 0);
    assert!(rig.late().is_empty());
    rig.redis -= 7_200_000;
    rig.pass(9);
    assert!(rig.late().is_empty());
    rig.pass(4);
    assert_eq!(rig.late(), ["cms"], "fifteen seconds are over, whatever Redis' clock shows");
}

#[test]
fn what_redis_loses_is_remembered_and_put_back() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 15, 12_000);
    rig.report("shop", 15, 0);
    assert_eq!(rig.late(), ["cms"]);
    rig.list.clear();
    // Another master, whose clock is elsewhere.
    rig.redis -= 500_000;
    assert_eq!(rig.look(), (false, vec!["cms".to_owned()]));
    rig.ask();
    let lost = |name: &str, left_ms, oldest_ms| LostSource { name: name.into(), left_ms, oldest_ms };
    assert_eq!(rig.lost, [lost("cms", 9_000, 18_000), lost("shop", 9_000, 0)]);
    rig.sources.interrupt();
    rig.list.push(Source { name: "cms".into(), until: 0, since: 0 });
    rig.pass(20);
    assert_eq!(
        rig.look(),
        (true, Vec::new()),
        "it has said good-bye, and time to report is left for the other"
    );
    rig.pass(10);
    assert_eq!(rig.late(), ["shop"]);
}

#[test]
fn who_is_silent_for_too_long_is_forgotten() {
    let mut rig = SourcesRig::new();
    rig.report("cms", 5, 0);
    assert!(rig.late().is_empty());
    rig.pass(5);
    assert_eq!(rig.late(), ["cms"]);
    rig.pass(3590);
    assert_eq!(rig.late(), ["cms"]);
    rig.pass(10);
    assert_eq!(rig.look(), (true, Vec::new()));
    assert_eq!((rig.look(), rig.sources.told()), ((false, Vec::new()), None));
    rig.list.clear();
    rig.ask();
    assert!(rig.lost.is_empty(), "nothing is put back");
}

#[test]
fn at_most_64_are_known() {
    let mut rig = SourcesRig::new();
    for n in 0..64 {
        rig.report(&format!("old-{n}"), 20, 0);
    }
    assert!(rig.late().is_empty());
    rig.list.clear();
    for n in 0..60 {
        rig.report(&format!("new-{n}"), 20, 0);
    }
    assert!(rig.late().is_empty());
    let known = rig.sources.shared().all();
    assert_eq!(known.len(), 64);
    assert_eq!(known.iter().filter(|source| source.name.starts_with("new")).count(), 60);
}
