//! A bus under test: settings, waiting for what it says, with a deadline.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use carillon::{
    bus::{Bus, BusEvent, Content, Delivery, LinkChange, Settings, StartError, redis::Target},
    metrics::Metrics,
    protocol::{Areas, EntryId, Event, Revocations, Subject, Topic},
    shutdown::Tasks,
};
use tokio::{sync::mpsc, time::timeout};

/// Longer than anything takes on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn areas() -> Areas {
    let names = ["comments", "notifications", "project-items", "projects", "content"];
    Areas::new(names.as_slice().iter().copied(), ["notifications"], ["content"]).unwrap()
}

/// Settings for a node of its own name; without a URL for the memory bus.
pub(crate) fn settings(url: Option<&str>) -> Settings {
    static NODES: AtomicU64 = AtomicU64::new(0);
    Settings {
        prefix: "carillon".into(),
        node: format!("node-{}", NODES.fetch_add(1, Ordering::Relaxed)),
        areas: areas(),
        log_length: 10,
        log_ttl: Duration::from_secs(3601),
        event_bytes: 65536,
        probe_interval: Duration::from_millis(500),
        revocations: Revocations::default(),
        generation: 0,
        adopted: carillon::bus::Adopted::default(),
        redis: url.map(|url| Target { url: url.into(), ..Target::default() }),
    }
}

pub(crate) fn topic(text: &str) -> Topic {
    Topic::parse(text, &areas()).unwrap()
}

pub(crate) fn subject(text: &str) -> Subject {
    Subject::parse(text, &areas()).unwrap()
}

pub(crate) fn event(json: &str) -> Event {
    Event::parse(Bytes::copy_from_slice(json.as_bytes()), 1 << 20).unwrap()
}

/// `{"type":"a.b","data":<n>}`
pub(crate) fn numbered(n: u64) -> Event {
    event(&format!(r#"{{"type":"a.b","data":{n}}}"#))
}

/// A bus with the receiving end of what it says.
pub(crate) struct TestBus {
    pub(crate) bus: Bus,
    pub(crate) events: mpsc::Receiver<BusEvent>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) settings: Settings,
}

impl TestBus {
    pub(crate) async fn try_start(settings: Settings) -> Result<Self, StartError> {
        let (tasks, metrics) = (Tasks::new(), Metrics::new());
        let (bus, events) = Bus::start(settings.clone(), metrics.clone(), &tasks).await?;
        Ok(Self { bus, events, tasks, metrics, settings })
    }

    /// Started, and the link up.
    pub(crate) async fn start(settings: Settings) -> Self {
        let mut bus = Self::try_start(settings).await.unwrap_or_else(|e| panic!("{e}"));
        bus.until_up().await;
        bus
    }

    pub(crate) async fn over(url: &str) -> Self {
        Self::start(settings(Some(url))).await
    }

    /// The next event.
    pub(crate) async fn next(&mut self) -> BusEvent {
        timeout(DEADLINE, self.events.recv()).await.expect("the bus says nothing").expect("the bus has ended")
    }

    /// Drops events until one is found.
    pub(crate) async fn until<T>(&mut self, mut found: impl FnMut(BusEvent) -> Option<T>) -> T {
        let search = async {
            let mut why = None;
            while let Some(event) = self.events.recv().await {
                if let BusEvent::Fatal(text) = &event {
                    why = Some(text.clone());
                }
                if let Some(t) = found(event) {
                    return t;
                }
            }
            panic!("the bus has ended: {:?}", why.or(self.bus.health().trouble))
        };
        timeout(DEADLINE, search).await.expect("the bus did not say it")
    }

    pub(crate) async fn until_up(&mut self) {
        self.until(|event| matches!(event, BusEvent::Link(LinkChange::Up)).then_some(())).await;
    }

    /// Until the link is up again, with nothing delivered before; whether a change of lineage was told on the way.
    pub(crate) async fn until_up_again(&mut self) -> bool {
        let mut changed = false;
        self.until(|event| match event {
            BusEvent::Link(LinkChange::Down { lineage_changed, .. }) => {
                changed |= lineage_changed;
                None
            }
            BusEvent::Link(LinkChange::Up) => Some(()),
            BusEvent::Delivery(delivery) => panic!("delivered while down: {delivery:?}"),
            _ => None,
        })
        .await;
        changed
    }

    /// Until the link is down; the reason and whether the lineage changed.
    pub(crate) async fn until_down(&mut self) -> (String, bool) {
        self.until(|event| match event {
            BusEvent::Link(LinkChange::Down { reason, lineage_changed }) => Some((reason, lineage_changed)),
            _ => None,
        })
        .await
    }

    /// The link is kept for two whole rounds of probes and looks from now on.
    pub(crate) async fn stays_up(&mut self) {
        let (now, mut proofs) = (std::time::Instant::now(), 0);
        self.until(|event| match event {
            BusEvent::Link(LinkChange::Down { reason, .. }) => panic!("given up: {reason}"),
            BusEvent::Proof { asked, .. } if asked > now => {
                proofs += 1;
                (proofs == 3).then_some(())
            }
            _ => None,
        })
        .await;
        assert!(self.bus.health().live);
    }

    /// Follows subjects; all must be confirmed.
    pub(crate) async fn follow(&self, subjects: &[&str]) {
        for result in self.bus.subscribe(subjects.iter().map(|s| subject(s)).collect()).await {
            result.unwrap();
        }
    }

    /// The next delivery; probes may come between.
    pub(crate) async fn delivery(&mut self) -> Delivery {
        let next = self.until(|event| match event {
            BusEvent::Delivery(delivery) => Some(Ok(delivery)),
            BusEvent::Proof { .. } => None,
            other => Some(Err(other)),
        });
        next.await.unwrap_or_else(|other| panic!("instead of a delivery: {other:?}"))
    }

    /// The next delivery, which must be this recorded event of this topic.
    pub(crate) async fn recorded(&mut self, at: &str, id: EntryId, json: &Event) {
        let delivery = self.delivery().await;
        assert_eq!(delivery.topic.as_str(), at);
        match delivery.content {
            Content::Recorded(got, event) => assert_eq!((got, &event), (id, json)),
            other => panic!("instead of a recorded event: {other:?}"),
        }
    }

    /// Everything that was delivered up to now: publishes a mark of its own on `content` and waits for it.
    pub(crate) async fn deliveries_so_far(&mut self) -> Vec<Delivery> {
        self.follow(&["content:fence"]).await;
        let fence = self.bus.publish(topic("content:fence"), numbered(0)).await.unwrap();
        let mut all = Vec::new();
        loop {
            let delivery = self.delivery().await;
            if matches!(delivery.content, Content::Recorded(id, _) if id == fence && delivery.topic == topic("content:fence"))
            {
                return all;
            }
            all.push(delivery);
        }
    }

    /// The next so many deliveries, where no order across topics is known (cluster).
    pub(crate) async fn deliveries_so_far_anywhere(&mut self, count: usize) -> Vec<Delivery> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.delivery().await);
        }
        all
    }

    /// Publishes to each topic until what was accepted arrives; links may come and go meanwhile.
    pub(crate) async fn all_work(&mut self, names: &[String]) {
        let publisher: Bus = self.bus.clone();
        let targets = names.to_vec();
        let mut missing = names.iter().cloned().collect::<HashSet<String>>();
        let publishing = async {
            loop {
                for name in &targets {
                    let _ = publisher.publish(topic(name), numbered(8)).await;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        let receiving = self.until(|event| {
            if let BusEvent::Delivery(delivery) = event {
                missing.remove(delivery.topic.as_str());
            }
            missing.is_empty().then_some(())
        });
        tokio::select! {
            () = publishing => {}
            () = receiving => {}
        }
    }

    pub(crate) async fn end(self) {
        assert_eq!(self.tasks.end(DEADLINE).await, 0, "tasks are left");
    }
}
