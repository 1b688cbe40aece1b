//! Traces: the steps of one event's way, as spans for an OpenTelemetry collector (OTLP over HTTP, JSON).
//!
//! The publisher decides: an event takes part when its `traceparent` (W3C Trace Context, in events by the CloudEvents
//! extension «Distributed Tracing») says that its trace is sampled, and the spans of all nodes join that trace. All
//! other events cost one search for that word; where no collector is configured nothing is looked at. Spans leave in
//! batches from a thread of the SDK, and are dropped where nobody takes them: an event never waits for its trace. Only
//! in a build with the feature `otlp`; any other has `untraced` in its place.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use opentelemetry::{
    KeyValue,
    propagation::TextMapPropagator,
    trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response, hyper::HyperClient};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tokio::runtime::Handle;

use super::stage::Stage;
use crate::{
    config::{Secret, shown_url},
    outbound::{self, Connector},
    protocol::{Event, Topic},
    shutdown::Tasks,
};

/// How long a collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last spans may take when the node stops.
const GOODBYE: Duration = Duration::from_secs(2);
/// Where a collector takes traces, below its address (OTLP specification, «OTLP/HTTP Request»).
const PATH: &str = "/v1/traces";

/// Where spans go. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Collector>>);

#[derive(Debug)]
struct Collector {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Traces {
    /// No traces.
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether traces can be sent to `endpoint`: an error says what is wrong with the setting.
    pub fn check(endpoint: &Secret) -> Result<(), String> {
        target(endpoint).map(drop)
    }

    /// Traces for the collector at `endpoint` (its address, or the whole URL that ends with `/v1/traces`). The thread
    /// that sends them ends with [`Traces::end`]. Must be called within the runtime.
    pub fn start(endpoint: &Secret, node: &str, tasks: &Tasks) -> Result<Self, String> {
        let (url, connector) = target(endpoint)?;
        let courier = Courier {
            client: HyperClient::new(connector, PATIENCE, None),
            tasks: tasks.clone(),
            runtime: Handle::current(),
            shown: shown_url(&url),
            failing: AtomicBool::default(),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(courier)
            .with_endpoint(url)
            .with_protocol(Protocol::HttpJson)
            .with_timeout(PATIENCE)
            // It would sleep between its tries, and the node's end would wait for it.
            .with_retry_policy(RetryPolicy::default().with_max_retries(0))
            .build()
            .map_err(|error| error.to_string())?;
        let resource = Resource::builder()
            .with_service_name("carillon")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", node.to_owned()))
            .build();
        let provider = SdkTracerProvider::builder()
            // What is not sampled is not begun.
            .with_sampler(Sampler::AlwaysOn)
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("carillon");
        Ok(Self(Some(Arc::new(Collector { tracer, provider }))))
    }

    /// Begins a step, if the event's trace is sampled.
    pub fn begin(&self, stage: Stage, topic: &Topic, event: &[u8]) -> Option<Span> {
        let collector = self.0.as_ref()?;
        let context = Event::trace_context(event).filter(|found| is_whole(&found["traceparent"]))?;
        let parent = TraceContextPropagator::new().extract(&context);
        if !parent.span().span_context().is_sampled() {
            return None;
        }
        let (verb, kind, name, passed) = match stage {
            Stage::Publish => ("send", SpanKind::Producer, "publish", Duration::ZERO),
            Stage::Deliver { since } => ("process", SpanKind::Consumer, "deliver", since.elapsed()),
        };
        // Names and attributes by OpenTelemetry's conventions for messaging; the area, because a span's name must have
        // few values.
        let span = collector
            .tracer
            .span_builder(format!("{name} {}", topic.area()))
            .with_kind(kind)
            .with_start_time(SystemTime::now() - passed)
            .with_attributes([
                KeyValue::new("messaging.system", "carillon"),
                KeyValue::new("messaging.operation.name", name),
                KeyValue::new("messaging.operation.type", verb),
                KeyValue::new("messaging.destination.name", topic.as_str().to_owned()),
            ])
            .start_with_context(&collector.tracer, &parent);
        Some(Span { inner: span })
    }

    /// Sends what waits, for two seconds and `patience` at most, and stops.
    pub async fn end(&self, tasks: &Tasks, patience: Duration) {
        let Some(collector) = self.0.clone() else { return };
        let patience = patience.min(GOODBYE);
        // It blocks, and what it waits for needs this runtime.
        let ended = tasks.spawn_blocking(move || collector.provider.shutdown_with_timeout(patience));
        if let Ok(Err(error)) = ended.await {
            tracing::debug!("the last traces are lost: {error}");
        }
    }
}

/// A step under way; ends when it is dropped.
#[derive(Debug)]
pub struct Span {
    inner: opentelemetry_sdk::trace::Span,
}

impl Span {
    /// To how many sessions of this node the event was handed.
    #[must_use]
    pub fn reached(mut self, sessions: u64) -> Self {
        self.inner.set_attribute(KeyValue::new("carillon.sessions", sessions as i64));
        self
    }

    /// What became of a publish: the position (none for a live event), or why it was refused.
    pub fn published<E: fmt::Display>(&mut self, result: Result<Option<String>, E>) {
        match result {
            Ok(Some(position)) => self.inner.set_attribute(KeyValue::new("carillon.position", position)),
            Ok(None) => {}
            Err(error) => self.inner.set_status(Status::error(error.to_string())),
        }
    }
}

/// Where batches go, and what opens connections there.
fn target(endpoint: &Secret) -> Result<(String, Connector), String> {
    let url = whole(endpoint.expose());
    let uri = url.parse().map_err(|error| format!("is not a URL: {error}"))?;
    let connector = outbound::connector(&uri, None)?;
    Ok((url, connector))
}

/// The URL for traces of a collector's address.
fn whole(endpoint: &str) -> String {
    let (address, query) = endpoint.find('?').map_or((endpoint, ""), |at| endpoint.split_at(at));
    let address = address.trim_end_matches('/');
    let address = address.strip_suffix(PATH).unwrap_or(address);
    format!("{address}{PATH}{query}")
}

/// Whether the parts of a `traceparent` have their lengths (W3C Trace Context, 3.2.2): the SDK takes shorter ones too,
/// and would begin a trace that nobody finds.
fn is_whole(traceparent: &str) -> bool {
    let lengths: Vec<_> = traceparent.split('-').map(str::len).collect();
    lengths.starts_with(&[2, 32, 16, 2])
}

/// Carries batches to the collector. The SDK asks from a thread of its own, outside of the runtime.
#[derive(Debug)]
struct Courier {
    client: HyperClient<Connector>,
    tasks: Tasks,
    runtime: Handle,
    shown: String,
    /// The trouble was logged.
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Courier {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, ending) = (self.client.clone(), self.tasks.ending().clone());
        let sent = {
            let _inside = self.runtime.enter();
            self.tasks.spawn(async move { ending.run_until_cancelled(client.send_bytes(request)).await })
        };
        let answer = sent.await?.ok_or("the node has stopped")?;
        let trouble = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(error) => Some(outbound::chain(error.as_ref())),
        };
        let was = self.failing.swap(trouble.is_some(), Ordering::Relaxed);
        match trouble {
            Some(why) if !was => tracing::warn!(
                collector = self.shown,
                "traces cannot be delivered and are dropped (telemetry.otlp_endpoint): {why}"
            ),
            None if was => tracing::info!(collector = self.shown, "traces are delivered again"),
            _ => {}
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_whole_or_nothing() {
        assert!(is_whole("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        assert!(is_whole("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-later"));
        for part in ["", "00-1-2-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"] {
            assert!(!is_whole(part), "{part}");
        }
    }

    #[test]
    fn the_path_is_added_where_it_is_missing() {
        for endpoint in
            ["http://c:4318", "http://c:4318/", "http://c:4318/v1/traces", "http://c:4318/v1/traces/"]
        {
            assert_eq!(whole(endpoint), "http://c:4318/v1/traces");
        }
        assert_eq!(whole("https://c/otlp"), "https://c/otlp/v1/traces");
        assert_eq!(whole("https://c/v1/traces?key=a/b"), "https://c/v1/traces?key=a/b");
        assert_eq!(whole("https://c?key=x"), "https://c/v1/traces?key=x");
    }
}
