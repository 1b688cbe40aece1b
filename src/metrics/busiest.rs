//! Which topics have most events, about: a fixed number of counters, however many topics there are.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005): a name without a counter takes over the smallest one and its count,
//! so a busy topic is never missed and no count is too low; each tells by how much it may be too high. An hour is six
//! windows of ten minutes. Memory: `WINDOWS` × `COUNTERS` names of at most 233 bytes, some 200 KB.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use rustc_hash::FxHashMap;
use serde::Serialize;

/// Counters in a window.
const COUNTERS: usize = 128;
/// Windows that are kept.
const WINDOWS: usize = 6;
/// How long a window is, ms.
const WINDOW: u64 = 600_000;

/// One topic of the busiest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Busy {
    /// Its name; `area:…` stands for all keys of a private area.
    pub topic: String,
    /// Its events in the last hour: at most so many.
    pub events: u64,
    /// By how much `events` may be too high.
    pub over: u64,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Busiest {
    windows: Mutex<VecDeque<Window>>,
}

#[derive(Debug, Default)]
struct Window {
    began: u64,
    counters: Vec<Counter>,
    /// Where the counter of a name is.
    places: FxHashMap<Arc<str>, usize>,
    /// Counters that stood at `least` when all of them were looked at, which is once for many names that come and go.
    smallest: Vec<usize>,
    least: u64,
}

#[derive(Debug)]
struct Counter {
    name: Arc<str>,
    count: u64,
    /// By how much it may be too high.
    over: u64,
}

impl Window {
    fn count(&mut self, name: &str) {
        if let Some(place) = self.places.get(name) {
            self.counters[*place].count += 1;
            return;
        }
        let name: Arc<str> = name.into();
        if self.counters.len() < COUNTERS {
            self.places.insert(Arc::clone(&name), self.counters.len());
            self.counters.push(Counter { name, count: 1, over: 0 });
            return;
        }
        let place = self.smallest();
        let counter = &mut self.counters[place];
        self.places.remove(&counter.name);
        self.places.insert(Arc::clone(&name), place);
        *counter = Counter { name, count: counter.count + 1, over: counter.count };
    }

    /// Takes out a counter than which none is smaller: counts only grow, so what still stands at `least` is one.
    fn smallest(&mut self) -> usize {
        loop {
            match self.smallest.pop() {
                Some(place) if self.counters[place].count == self.least => return place,
                Some(_) => {}
                None => {
                    self.least = self.counters.iter().map(|counter| counter.count).min().unwrap_or(0);
                    let stand = (0..).zip(&self.counters).filter(|(_, counter)| counter.count == self.least);
                    self.smallest.extend(stand.map(|(place, _)| place));
                }
            }
        }
    }
}

impl Busiest {
    /// One event for `name` at `now` (ms since 1970).
    pub fn count(&self, name: &str, now: u64) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.back().is_none_or(|window| now.saturating_sub(window.began) >= WINDOW) {
            windows.push_back(Window { began: now, ..Window::default() });
            while windows.len() > WINDOWS {
                windows.pop_front();
            }
        }
        if let Some(window) = windows.back_mut() {
            window.count(name);
        }
    }

    /// The `most` busiest of the hour before `now`, busiest first.
    pub fn list(&self, most: usize, now: u64) -> Vec<Busy> {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums: HashMap<&str, (u64, u64)> = HashMap::new();
        let hour = WINDOW * WINDOWS as u64;
        for window in windows.iter().filter(|window| now.saturating_sub(window.began) < hour) {
            for counter in &window.counters {
                let sum = sums.entry(&counter.name).or_default();
                *sum = (sum.0 + counter.count, sum.1 + counter.over);
            }
        }
        in_order(sums, most)
    }
}

/// Busiest first; equal ones by name, so that a list does not flicker.
fn in_order(sums: HashMap<&str, (u64, u64)>, most: usize) -> Vec<Busy> {
    let mut all: Vec<Busy> = sums
        .into_iter()
        .map(|(topic, (events, over))| Busy { topic: topic.to_owned(), events, over })
        .collect();
    all.sort_by(|a, b| b.events.cmp(&a.events).then_with(|| a.topic.cmp(&b.topic)));
    all.truncate(most);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_are_found_among_many_more_than_there_are_counters() {
        let busiest = Busiest::default();
        for round in 0..400_u64 {
            busiest.count("comments:1", 0);
            if round % 2 == 0 {
                busiest.count("comments:2", 0);
            }
            for other in 0..5 {
                busiest.count(&format!("content:{}", round * 5 + other), 0);
            }
        }
        let list = busiest.list(2, 0);
        assert_eq!(
            list.iter().map(|busy| busy.topic.as_str()).collect::<Vec<_>>(),
            ["comments:1", "comments:2"]
        );
        for (busy, events) in list.iter().zip([400, 200]) {
            assert!(busy.events >= events && busy.events - busy.over <= events, "{busy:?}");
        }
        let windows = busiest.windows.lock().unwrap();
        assert_eq!((windows[0].counters.len(), windows[0].places.len()), (COUNTERS, COUNTERS), "bounded");
    }

    #[test]
    fn the_counter_that_is_taken_over_is_always_a_smallest_one() {
        let mut window = Window::default();
        // Some names come often, most once: the smallest count rises bit by bit.
        for n in 0..20_000_u64 {
            let name = if n % 3 == 0 { format!("often:{}", n % 40) } else { format!("once:{n}") };
            let least = window.counters.iter().map(|counter| counter.count).min().unwrap_or(0);
            let known = window.places.contains_key(name.as_str());
            let full = window.counters.len() == COUNTERS;
            window.count(&name);
            let counter = &window.counters[window.places[name.as_str()]];
            assert_eq!(&*counter.name, name);
            if !known {
                let taken = if full { least } else { 0 };
                assert_eq!((counter.count, counter.over), (taken + 1, taken), "event {n}");
            }
        }
        let sum: u64 = window.counters.iter().map(|counter| counter.count).sum();
        assert_eq!(sum, 20_000, "each event is counted once");
    }

    #[test]
    fn an_hour_later_they_are_forgotten() {
        let busiest = Busiest::default();
        busiest.count("comments:1", 0);
        busiest.count("comments:1", WINDOW);
        busiest.count("comments:2", WINDOW);
        assert_eq!(busiest.list(9, WINDOW)[0].events, 2, "windows are added up");
        let later = WINDOW * WINDOWS as u64;
        assert_eq!(busiest.list(9, later).iter().map(|busy| busy.events).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(busiest.list(9, later + WINDOW), []);
        for n in 0..20 {
            busiest.count("comments:3", n * WINDOW);
        }
        assert_eq!(busiest.windows.lock().unwrap().len(), WINDOWS, "bounded");
    }
}
