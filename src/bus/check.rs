//! Checks an event before it goes to Redis or to a log in memory, as the publish function does. What the types already guarantee
//! ([`Event`] is checked when it is read) is not checked again. Also counts publishes by their result.

use super::{BusError, Settings};
use crate::{
    metrics::{Metrics, ReasonLabel},
    protocol::{Event, EventError, Topic},
};

/// Why a live event is refused in the area of this name.
#[derive(Debug, thiserror::Error)]
#[error("area {0:?} takes recorded events only (areas.recorded_only): publish it as a recorded event")]
pub struct RecordedOnly<'a>(pub &'a str);

/// Counts recorded events that were published in one step. Those that are refused together are published one by one, and
/// counted then.
pub(super) fn count_all<T>(metrics: &Metrics, events: usize, result: &Result<T, BusError>) {
    let times = match result {
        Ok(_) => events,
        Err(BusError::Away(_)) => 1,
        Err(_) => usize::from(events == 1),
    };
    for _ in 0..times {
        count(metrics, "recorded", result);
    }
}

/// Counts a publish by what became of it; `kind` is `recorded` or `live`.
pub(super) fn count<T>(metrics: &Metrics, kind: &'static str, result: &Result<T, BusError>) {
    let reason = match result {
        Ok(_) => kind,
        Err(BusError::Away(_)) => "away",
        Err(BusError::Refused(_) | BusError::Event(_)) => "refused",
    };
    metrics.published.get_or_create(&ReasonLabel { reason }).inc();
}

/// Whether the event fits and the topic is spelled as its followers spell it.
pub(super) fn recorded(settings: &Settings, topic: &Topic, event: &Event) -> Result<(), BusError> {
    Topic::parse_published(topic.as_str(), &settings.areas).map_err(|e| BusError::Event(e.to_string()))?;
    let (bytes, limit) = (event.json().len(), settings.event_bytes());
    if bytes > limit {
        return Err(BusError::Event(EventError::TooLarge { bytes, limit }.to_string()));
    }
    Ok(())
}

/// The same for a live event, and whether its area takes live events.
pub(super) fn live(settings: &Settings, topic: &Topic, event: &Event) -> Result<(), BusError> {
    recorded(settings, topic, event)?;
    if settings.areas.is_recorded_only(topic.area()) {
        return Err(BusError::Event(RecordedOnly(topic.area()).to_string()));
    }
    Ok(())
}
