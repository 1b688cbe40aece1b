//! Which node reads which log how often, as Redis itself sees it (`MONITOR`).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, ensure};
use tokio_util::task::AbortOnDropHandle;

use crate::resp::Connection;

/// Bytes that a node asks for in the first page of a log; the further ones are longer, and the same read.
const FIRST_PAGE: &str = "16384";

/// Client and log.
type Reader = (String, String);

/// Counts the reads of logs while it lives.
pub(crate) struct Reads {
    counts: Arc<Mutex<BTreeMap<Reader, u32>>>,
    watching: AbortOnDropHandle<()>,
}

impl Reads {
    /// Watches the server on this port.
    pub(crate) async fn watch(port: u16) -> Result<Self> {
        let mut connection = Connection::open(port).await?;
        let answer = connection.ask(&["MONITOR"]).await?;
        ensure!(answer.text() == Some("OK"), "MONITOR: {answer:?}");
        let counts = Arc::<Mutex<BTreeMap<Reader, u32>>>::default();
        let counting = Arc::clone(&counts);
        let watching = tokio::spawn(async move {
            while let Ok(line) = connection.next().await {
                if let Some(reader) = line.text().and_then(reader) {
                    *counting.lock().unwrap_or_else(PoisonError::into_inner).entry(reader).or_default() += 1;
                }
            }
        });
        Ok(Self { counts, watching: AbortOnDropHandle::new(watching) })
    }

    /// How often each client has read each log, where it has. A node is one client for as long as its link lives.
    pub(crate) fn counts(&self) -> Result<BTreeMap<Reader, u32>> {
        ensure!(!self.watching.is_finished(), "Redis has closed the connection that watches");
        Ok(self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// Who reads what in a line of `MONITOR`: `TIME [DATABASE ADDRESS] "COMMAND" "ARGUMENT" …`.
fn reader(line: &str) -> Option<Reader> {
    let (client, command) = line.split_once('[')?.1.split_once("] \"")?;
    let mut words = command.split("\" \"");
    let asks = words.next()?.starts_with("FCALL") && words.next()? == "carillon_history";
    let log = words.nth(1)?;
    let begins = words.nth(1)?.trim_end_matches('"') == FIRST_PAGE;
    (asks && begins).then(|| (client.to_owned(), log.to_owned()))
}
