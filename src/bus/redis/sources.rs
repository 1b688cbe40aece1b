//! Sources in Redis: read by nodes, and forgotten by operators.

use fred::types::Value;

use super::{commands::CommandClient, connection::PATIENCE, fault::Fault, reply};
use crate::bus::{LostSource, Source, Sources};

impl CommandClient {
    /// All sources; `lost` are put back first where Redis does not have them.
    pub(super) async fn sources(&self, lost: &[LostSource]) -> Result<Sources, Fault> {
        let mut args: Vec<Value> = Vec::with_capacity(lost.len() * 3);
        for source in lost {
            let (left, oldest) = (source.left_ms.to_string(), source.oldest_ms.to_string());
            args.extend([source.name.as_str().into(), left.into(), oldest.into()]);
        }
        let answer = self.call("sources", &[self.keys().sources()], args, PATIENCE).await?;
        Ok(read(answer))
    }

    /// Says good-bye for a source.
    pub(super) async fn forget_source(&self, name: &str) -> Result<(), Fault> {
        let args = vec![name.into(), 0.into()];
        self.call("source", &[self.keys().sources()], args, PATIENCE).await.map(drop)
    }
}

/// Redis' clock, then of each source its name, until when it is vouched for, and since when its oldest event waits. What
/// somebody wrote by hand under a name that is none is left out.
pub(super) fn read(answer: Vec<Value>) -> Sources {
    let mut texts = answer.into_iter().map(reply::text);
    let now = texts.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut sources = Sources { now, list: Vec::new() };
    while let (Some(name), Some(until), Some(since)) = (texts.next(), texts.next(), texts.next()) {
        if let (true, Ok(until), Ok(since)) = (Source::is_name(&name), until.parse(), since.parse()) {
            sources.list.push(Source { name, until, since });
        }
    }
    sources
}
