//! What is refused before it reaches Redis or a memory log: the part of the publish function's verdict that is not
//! already in the types ([`Event`] is checked when it is read). Must not know where events go.

use super::{BusError, Settings};
use crate::protocol::{Event, EventError, Topic};

/// Whether the event fits and the topic is spelled as its followers spell it.
pub(super) fn recorded(settings: &Settings, topic: &Topic, event: &Event) -> Result<(), BusError> {
    Topic::parse_published(topic.as_str(), &settings.areas).map_err(|e| BusError::Event(e.to_string()))?;
    let (bytes, limit) = (event.json().len(), settings.event_bytes);
    if bytes > limit {
        return Err(BusError::Event(EventError::TooLarge { bytes, limit }.to_string()));
    }
    Ok(())
}

/// The same for a live event, and whether its area takes live events.
pub(super) fn live(settings: &Settings, topic: &Topic, event: &Event) -> Result<(), BusError> {
    recorded(settings, topic, event)?;
    if settings.areas.is_recorded_only(topic.area()) {
        let area = topic.area();
        return Err(BusError::Event(format!(
            "area {area:?} takes recorded events only (areas.recorded_only): publish it as a recorded event"
        )));
    }
    Ok(())
}
