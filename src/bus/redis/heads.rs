//! The ends of logs: many are asked for at once, and each has its own answer. A log that cannot be opened, or a key that may not be
//! touched, is an error of that topic alone.

use std::vec;

use fred::types::Value;
use futures_util::future::try_join_all;

use super::{
    commands::{CommandClient, id, unreadable},
    connection::READ_PATIENCE,
    fault::Fault,
};
use crate::{
    bus::Head,
    protocol::{Lineage, Topic},
};

/// Logs whose heads are asked for in one call.
const HEADS: usize = 200;

/// Such calls that are under way at once: a slow link costs time once for all of them, and together they hold up Redis for a few
/// milliseconds.
const BATCHES: usize = 8;

/// Calls that are under way at once where each log needs its own (cluster).
const CALLS: usize = 512;

impl CommandClient {
    /// The ends of logs, opened where there is none; one answer for each topic, so that a refused one stops no other.
    pub(super) async fn heads(&self, topics: &[Topic]) -> Result<Vec<Result<Head, Fault>>, Fault> {
        let (size, at_once) = if self.sharded { (1, CALLS) } else { (HEADS, BATCHES) };
        let batches = topics.chunks(size).collect::<Vec<_>>();
        let mut heads = Vec::with_capacity(topics.len());
        for batches in batches.chunks(at_once) {
            let answers = try_join_all(batches.iter().map(|batch| self.batch(batch))).await?;
            heads.extend(answers.into_iter().flatten());
        }
        Ok(heads)
    }

    /// The heads of one batch: what Redis refuses is an error of these topics, and no other batch's. (One master of a cluster may
    /// refuse while the others serve.) Where the link shows trouble, or a server is not ready, all are asked for again.
    async fn batch(&self, topics: &[Topic]) -> Result<Vec<Result<Head, Fault>>, Fault> {
        match self.some_heads(topics).await {
            Err(fault @ (Fault::Away(_) | Fault::Replica(_))) => Err(fault),
            Err(fault) => Ok(vec![Err(fault); topics.len()]),
            heads => heads,
        }
    }

    /// The heads of topics, in one call for all of them where Redis refuses none.
    pub(super) async fn some_heads(&self, topics: &[Topic]) -> Result<Vec<Result<Head, Fault>>, Fault> {
        match self.asked_heads(topics).await {
            Err(refused @ Fault::Refused(_)) if topics.len() == 1 => Ok(vec![Err(refused)]),
            // Redis does not say which key it refuses: each is asked for alone, all at once, so that over a slow link they wait
            // no longer than one.
            Err(Fault::Refused(_)) => {
                let alone = topics.chunks(1).map(|topic| async move {
                    match self.asked_heads(topic).await {
                        Err(refused @ Fault::Refused(_)) => Ok(vec![Err(refused)]),
                        answered => answered,
                    }
                });
                Ok(try_join_all(alone).await?.into_iter().flatten().collect())
            }
            answered => answered,
        }
    }

    async fn asked_heads(&self, topics: &[Topic]) -> Result<Vec<Result<Head, Fault>>, Fault> {
        let keys = topics.iter().map(|topic| self.keys().channel(topic)).collect::<Vec<_>>();
        let told = |function, args| self.call_told(self.connection(), function, &keys, args, READ_PATIENCE);
        match told("open", Vec::new()).await {
            Ok(answer) => Self::tops(answer, topics.len(), &unreadable()),
            // Redis is full: existing logs are read, and none is opened.
            Err(full @ Fault::NoWrites(_)) => {
                let answer = told("heads", vec!["look".into()]).await?;
                Self::tops(answer, topics.len(), &full)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Reads the ends of `count` logs; `missing` is the error of one that is not there.
    fn tops(
        (lineage, answer): (Lineage, vec::IntoIter<Value>),
        count: usize,
        missing: &Fault,
    ) -> Result<Vec<Result<Head, Fault>>, Fault> {
        let head = |top: Value| {
            if top.is_null() {
                return Err(missing.clone());
            }
            Ok(Head { lineage: lineage.clone(), top: id(Some(top))? })
        };
        let heads = answer.skip(1).map(head).collect::<Vec<_>>();
        if heads.len() == count { Ok(heads) } else { Err(unreadable()) }
    }
}
