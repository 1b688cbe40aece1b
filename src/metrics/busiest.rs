//! Which topics have most events, about: a fixed number of counters, however many topics there are.
//!
//! Space-Saving (Metwally, Agrawal, El Abbadi 2005): a name without a counter takes over the smallest one and its count,
//! so a busy topic is never missed and no count is too low; each tells by how much it may be too high. An hour is six
//! windows of ten minutes. Memory: `WINDOWS` × `COUNTERS` names of at most 233 bytes, some 200 KB.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
};

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
    /// Count, and by how much it may be too high.
    counters: HashMap<String, (u64, u64)>,
}

impl Window {
    fn count(&mut self, name: &str) {
        if let Some((count, _)) = self.counters.get_mut(name) {
            *count += 1;
            return;
        }
        let mut taken = 0;
        if self.counters.len() >= COUNTERS {
            let least = self.counters.iter().min_by_key(|(_, (count, _))| *count);
            if let Some((name, (count, _))) = least.map(|(name, counter)| (name.clone(), *counter)) {
                self.counters.remove(&name);
                taken = count;
            }
        }
        self.counters.insert(name.to_owned(), (taken + 1, taken));
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
            for (name, (count, over)) in &window.counters {
                let sum = sums.entry(name).or_default();
                *sum = (sum.0 + count, sum.1 + over);
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
        assert_eq!(busiest.windows.lock().unwrap()[0].counters.len(), COUNTERS, "bounded");
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
