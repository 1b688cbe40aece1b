//! The bench as publisher: recorded or live events through the bus, or `POST /publish`.
//!
//! Events of a batch are published in order and in one go; a batch is published when it has been accepted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use carillon::{
    bus::Bus,
    protocol::{Areas, Event, Topic},
};
use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};

use super::{meter::Http, order::Side, plan, plan::Plan};

/// Where events are published.
pub(super) enum Publisher {
    /// Through Redis.
    Bus {
        /// The bus, used for publishing only.
        bus: Box<Bus>,
        /// The area of the plan.
        areas: Areas,
        /// What all names in Redis begin with.
        prefix: String,
        /// Live events instead of recorded ones.
        live: bool,
    },
    /// Through a node's internal listener.
    Http {
        /// The client.
        http: Box<Http>,
        /// `…/publish`.
        url: String,
        /// `internal.publish_token`.
        token: Option<String>,
    },
}

impl Publisher {
    /// Publishes the events `from..from + count` of the plan, in its topics for this side; `late` ago they were due.
    pub(super) async fn publish(
        &self,
        (plan, side): (&Plan, Side),
        from: u64,
        count: u64,
        bytes: usize,
        late: Duration,
    ) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(late).as_nanos() as u64;
        let events = (from..from + count).map(|e| {
            let (topic, n) = plan.place(e);
            let name = if side == Side::Floor { plan.forwarded(topic) } else { plan.topic(topic) };
            (name, plan::event(n, now, bytes))
        });
        match self {
            Self::Bus { bus, areas, live, .. } => {
                let publish = |topic: Topic, event| async move {
                    if *live {
                        bus.publish_live(topic, event).await
                    } else {
                        bus.publish(topic, event).await.map(drop)
                    }
                };
                let checked = events.map(|(topic, json)| {
                    Ok((Topic::parse(&topic, areas)?, Event::parse(Bytes::from(json), usize::MAX)?))
                });
                let checked = checked.collect::<Result<Vec<_>>>()?;
                for result in join_all(checked.into_iter().map(|(topic, event)| publish(topic, event))).await
                {
                    result?;
                }
                Ok(())
            }
            Self::Http { http, url, token } => {
                let elements: Vec<String> =
                    events.map(|(topic, json)| format!(r#"{{"topic":"{topic}","event":{json}}}"#)).collect();
                post(http, url, token.as_deref(), format!("[{}]", elements.join(","))).await
            }
        }
    }
}

async fn post(http: &Http, url: &str, token: Option<&str>, body: String) -> Result<()> {
    let mut request = hyper::Request::post(url).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let answer = http.request(request).await.with_context(|| format!("cannot publish at {url}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    if status != hyper::StatusCode::OK {
        bail!("{url} answers {status}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
