//! `POST /publish`: events from publishers that do not speak to Redis themselves.
//!
//! Everything is checked before anything is published, and success is never said of what Redis did not accept.

use std::{
    cell::Cell,
    collections::{HashSet, VecDeque},
    fmt,
    sync::Arc,
};

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

use super::{
    InternalState,
    internal::Permission,
    refusal::{Refusal, bus_problem, not_tried, too_large},
};
use crate::{
    bus::{BusError, RecordedOnly},
    metrics::ReasonLabel,
    protocol::{EntryId, Event, Problem, ProblemCode, Topic, object::Object},
    telemetry::traces::Stage,
};

/// Elements of a batch at most.
const ELEMENTS: usize = 10_000;
/// Elements that are published in one step of Redis at most.
const TOGETHER: usize = 32;
/// Bytes of the events in one step: as many as one event may have, so that Redis is busy no longer than with one.
const TOGETHER_BYTES: usize = 64 * 1024;

#[derive(Deserialize)]
pub(super) struct Options {
    live: Option<String>,
}

/// One element as it arrives.
#[derive(Deserialize)]
struct Element {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    event: Box<RawValue>,
}

/// One element that may be published.
struct Checked {
    topics: Vec<Topic>,
    event: Event,
}

pub(super) async fn publish(
    State(internal): State<Arc<InternalState>>,
    options: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    // What reaches the bus is counted there.
    let refused = |_: &Problem| {
        internal.metrics.published.get_or_create(&ReasonLabel { reason: "refused" }).inc();
    };
    let permission = internal.permission(&headers).await.inspect_err(refused)?;
    let live = is_live(&options).inspect_err(refused)?;
    let body = body.map_err(|why| too_large(&why)).inspect_err(refused)?;
    let checked = match check(&internal, &permission, &body, live) {
        // Areas and limits may just have changed in Redis: look there before the publisher is refused.
        Err(problem)
            if matches!(problem.code, ProblemCode::BadTopic | ProblemCode::BadEvent)
                && internal.bus.renew_settings().await =>
        {
            check(&internal, &permission, &body, live)
        }
        checked => checked,
    };
    let checked = checked.inspect_err(refused)?;
    let mut results = Vec::with_capacity(checked.len());
    let mut failed = BatchFailures::default();
    let mut checked = VecDeque::from(checked);
    while !checked.is_empty() {
        let mut run: Vec<_> = checked.drain(..run_length(&checked, live)).collect();
        if run.len() > 1
            && let Some(positions) = send_together(&internal, &run, &mut failed).await
        {
            results.extend(positions);
            continue;
        }
        for element in run.drain(..) {
            results.push(send(&internal, element, live, &mut failed).await);
        }
    }
    Ok(answer(results)?)
}

fn is_live(options: &Result<Query<Options>, QueryRejection>) -> Result<bool, Problem> {
    match options.as_ref().map(|Query(options)| options.live.as_deref()) {
        Ok(None | Some("0" | "false")) => Ok(false),
        Ok(Some("" | "1" | "true")) => Ok(true),
        _ => {
            let detail = "live is 1 (nothing is kept) or 0 (recorded, the default).";
            Err(Problem::new(400, ProblemCode::BadRequest, "Not a request", detail))
        }
    }
}

/// Checks everything; the first trouble is the answer, with the element it is in.
fn check(
    internal: &InternalState,
    permission: &Permission,
    body: &[u8],
    live: bool,
) -> Result<Vec<Checked>, Problem> {
    let (elements, batch) = read(body)?;
    let named = |index: usize, problem: Problem| problem.with("element", index).with("batch", batch);
    let check_one = |(index, element): (usize, Element)| {
        let bad = |code, detail: String| named(index, Problem::new(400, code, "Not published", detail));
        let texts = match (element.topic, element.topics) {
            (Some(topic), None) => vec![topic],
            (None, Some(topics)) if !topics.is_empty() => topics,
            _ => {
                return Err(bad(
                    ProblemCode::BadRequest,
                    "An element needs \"topic\" or \"topics\" (not both).".into(),
                ));
            }
        };
        let mut topics = Vec::with_capacity(texts.len());
        for text in texts {
            let topic = internal.topic(&text).map_err(|e| bad(ProblemCode::BadTopic, e.to_string()))?;
            if live && internal.areas.is_recorded_only(topic.area()) {
                return Err(bad(ProblemCode::BadTopic, RecordedOnly(topic.area()).to_string()));
            }
            if !permission.covers(&topic, &internal.areas) {
                let detail = format!("The token's publish claim does not allow {topic}.");
                return Err(named(index, Problem::new(403, ProblemCode::Forbidden, "Not published", detail)));
            }
            topics.push(topic);
        }
        let raw = Bytes::copy_from_slice(element.event.get().as_bytes());
        let event = Event::parse(raw, internal.bus.event_bytes()).map_err(|e| {
            let status = if matches!(e, crate::protocol::EventError::TooLarge { .. }) { 413 } else { 400 };
            named(index, Problem::new(status, ProblemCode::BadEvent, "Not published", e.to_string()))
        })?;
        Ok(Checked { topics, event })
    };
    elements.into_iter().enumerate().map(check_one).collect()
}

/// Reads one element, or an array of them.
fn read(body: &[u8]) -> Result<(Vec<Element>, bool), Problem> {
    let reached = Cell::new(0);
    let batch = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let mut reader = serde_json::Deserializer::from_slice(body);
    let elements = if batch {
        reader.deserialize_seq(Batch(&reached))
    } else {
        Element::deserialize(&mut reader).map(|element| vec![element])
    };
    let elements = elements.and_then(|elements| reader.end().map(|()| elements)).map_err(|e| {
        let detail = format!(
            "Element {} is not {{\"topic\":\"comments:42\",\"event\":{{\"type\":\"…\"}}}}: {e}.",
            reached.get()
        );
        Problem::new(400, ProblemCode::BadRequest, "Not a request", detail)
            .with("element", reached.get())
            .with("batch", batch)
    })?;
    if elements.is_empty() {
        return Err(Problem::new(400, ProblemCode::BadRequest, "Not a request", "The array is empty."));
    }
    Ok((elements, batch))
}

/// Reads an array and remembers how far it came.
struct Batch<'a>(&'a Cell<usize>);

impl<'de> Visitor<'de> for Batch<'_> {
    type Value = Vec<Element>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Vec<Element>, A::Error> {
        let mut elements = Vec::new();
        while let Some(Object(element)) = array.next_element()? {
            elements.push(element);
            self.0.set(elements.len());
            if elements.len() > ELEMENTS {
                return Err(serde::de::Error::custom(format!("at most {ELEMENTS} elements at a time")));
            }
        }
        Ok(elements)
    }
}

/// What has failed so far, so that nothing overtakes it.
#[derive(Default)]
struct BatchFailures {
    /// Redis is away: each further try would wait in vain.
    away: bool,
    topics: HashSet<Topic>,
}

/// What became of an element: the positions of what Redis accepted (`null` for live events), and why no more.
struct Outcome {
    positions: Vec<Value>,
    problem: Option<Problem>,
}

/// How many of the first elements can be published in one step of Redis: recorded ones of one topic. Redis does nothing
/// else meanwhile, so they are not too many.
fn run_length(elements: &VecDeque<Checked>, live: bool) -> usize {
    let first = &elements[0].topics;
    if live || first.len() != 1 {
        return 1;
    }
    let mut bytes = 0;
    let fits = |element: &&Checked| {
        bytes += element.event.json().len();
        element.topics == *first && bytes <= TOGETHER_BYTES
    };
    elements.iter().take(TOGETHER).take_while(fits).count().max(1)
}

/// Publishes elements of one topic in one step. `None`: Redis took none of them, and each has to be told why.
async fn send_together(
    internal: &InternalState,
    run: &[Checked],
    failed: &mut BatchFailures,
) -> Option<Vec<Outcome>> {
    let topic = run.first()?.topics.first()?;
    if failed.away || failed.topics.contains(topic) {
        return None;
    }
    let spans: Vec<_> = run
        .iter()
        .map(|element| internal.traces.begin(Stage::Publish, topic, element.event.json()))
        .collect();
    let events = run.iter().map(|element| element.event.clone()).collect();
    let result = internal.bus.publish_all(topic.clone(), events).await;
    for (n, span) in spans.into_iter().enumerate() {
        if let Some(mut span) = span {
            span.published(result.as_ref().map(|ids| ids.get(n).map(EntryId::to_string)));
        }
    }
    match result {
        Ok(ids) => {
            let told = |id: EntryId| Outcome { positions: vec![id.to_string().into()], problem: None };
            Some(ids.into_iter().map(told).collect())
        }
        // Redis may have taken them: none is published again.
        Err(error @ BusError::Away(_)) => {
            failed.away = true;
            let told = |_| Outcome { positions: Vec::new(), problem: Some(bus_problem(&error)) };
            Some(run.iter().map(told).collect())
        }
        Err(_) => None,
    }
}

/// Publishes one element, topic by topic, up to the first trouble. What it could not be published to is published to by no later element.
async fn send(internal: &InternalState, element: Checked, live: bool, failed: &mut BatchFailures) -> Outcome {
    let mut positions = Vec::with_capacity(element.topics.len());
    let mut topics = element.topics.into_iter();
    while let Some(topic) = topics.next() {
        if failed.away || failed.topics.contains(&topic) {
            failed.topics.extend(topics);
            return Outcome { positions, problem: Some(not_tried()) };
        }
        let event = element.event.clone();
        let span = internal.traces.begin(Stage::Publish, &topic, event.json());
        let result = if live {
            internal.bus.publish_live(topic.clone(), event).await.map(|()| None)
        } else {
            internal.bus.publish(topic.clone(), event).await.map(|id| Some(id.to_string()))
        };
        if let Some(mut span) = span {
            span.published(result.as_ref().cloned());
        }
        match result {
            Ok(position) => positions.push(position.into()),
            Err(error) => {
                failed.away |= matches!(error, BusError::Away(_));
                failed.topics.insert(topic);
                failed.topics.extend(topics);
                return Outcome { positions, problem: Some(bus_problem(&error)) };
            }
        }
    }
    Outcome { positions, problem: None }
}

/// One problem speaks for a request of which nothing was published, unless it is not the only one: Redis may have taken what another
/// element says is away.
fn answer(outcomes: Vec<Outcome>) -> Result<Response, Problem> {
    let problem = |outcome: &Outcome| outcome.problem.as_ref().map(|problem| problem.code);
    let Some((first, code)) = outcomes.iter().map(problem).enumerate().find_map(|(n, code)| Some((n, code?)))
    else {
        let positions: Vec<_> = outcomes.into_iter().flat_map(|outcome| outcome.positions).collect();
        return Ok(Json(json!({ "positions": positions })).into_response());
    };
    let said = |outcome: &Outcome| {
        problem(outcome).is_some_and(|other| other == code || other == ProblemCode::NotTried)
    };
    if outcomes.iter().all(|outcome| outcome.positions.is_empty() && said(outcome)) {
        let problem = outcomes.into_iter().nth(first).and_then(|outcome| outcome.problem);
        return Err(problem.unwrap_or_else(not_tried).with("element", first));
    }
    let results: Vec<_> = outcomes
        .into_iter()
        .enumerate()
        .map(|(element, Outcome { positions, problem })| match problem {
            None => json!({ "element": element, "status": 200, "positions": positions }),
            Some(Problem { status, code, detail, .. }) => json!({
                "element": element, "status": status, "code": code, "detail": detail, "positions": positions,
            }),
        })
        .collect();
    Ok((StatusCode::MULTI_STATUS, Json(json!({ "results": results }))).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(problem: Option<Problem>) -> Outcome {
        Outcome { positions: problem.is_none().then(|| "1-1".into()).into_iter().collect(), problem }
    }

    #[test]
    fn one_problem_speaks_for_all_where_it_is_the_only_one() {
        let refused = || Some(bus_problem(&BusError::Refused("WRONGTYPE".into())));
        let away = || Some(bus_problem(&BusError::Away("no answer".into())));
        let told = |problems: Vec<Option<Problem>>| match answer(problems.into_iter().map(outcome).collect())
        {
            Ok(response) => response.status().as_u16(),
            Err(problem) => problem.status,
        };
        assert_eq!(told(vec![None, None]), 200);
        assert_eq!(told(vec![refused(), Some(not_tried()), refused()]), 503);
        assert_eq!(told(vec![away(), Some(not_tried())]), 503);
        assert_eq!(told(vec![None, away()]), 207);
        assert_eq!(told(vec![refused(), away()]), 207, "Redis may have taken the second");
    }
}
