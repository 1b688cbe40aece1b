//! Commands that go to the master that has their key, wherever that is by now.
//!
//! A cluster's answers MOVED, ASK and TRYAGAIN stay in here: they mean that nothing was done, so the command is sent again, where it
//! belongs.

use std::time::Duration;

use fred::{
    prelude::{Error, ErrorKind},
    types::Value,
};
use tokio::time::{Instant, sleep};

use super::{
    connection::Connection,
    fault::describe,
    lineage,
    server_socket::ServerSocket,
    slots::{Redirect, redirect},
};
use crate::{bus::ASTRAY, mutant};

/// The wait before a command is sent again that a cluster cannot serve yet; grows with each try.
const AGAIN: Duration = Duration::from_millis(20);
/// How long masters may send us from one to the other.
const DISAGREEMENT: Duration = Duration::from_secs(2);

impl Connection {
    /// Sends a command to the master that has its key, wherever that is by now.
    pub(super) async fn command(
        &self,
        name: &'static str,
        key: &str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<Value, Error> {
        let answers = self.routed(name, key, args, timeout, false).await?;
        Ok(answers.into_iter().next_back().unwrap_or(Value::Null))
    }

    /// The same, with INFO directly before and behind it: the answers, and the lineage where both say the same.
    pub(super) async fn command_with_lineage(
        &self,
        name: &'static str,
        key: &str,
        args: Vec<Value>,
        timeout: Duration,
    ) -> Result<(Value, Option<String>), Error> {
        let answers = self.routed(name, key, args, timeout, true).await?;
        let mut answers = answers.into_iter();
        let behind = lineage::told(answers.next_back());
        let answer = answers.next_back().unwrap_or(Value::Null);
        Ok((
            answer,
            behind.filter(|lineage_behind| lineage::told(answers.next()).as_ref() == Some(lineage_behind)),
        ))
    }

    /// Sends a command to the master that has its key; the answers to all that was sent for it, in order.
    async fn routed(
        &self,
        name: &'static str,
        key: &str,
        args: Vec<Value>,
        timeout: Duration,
        with_info: bool,
    ) -> Result<Vec<Value>, Error> {
        let deadline = Instant::now() + timeout;
        let mut heir = None;
        let (mut tries, mut sent_on) = (0, None);
        // Why it is to be tried again, where Redis has said more than where to ask.
        let mut why = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (server, asking) = match (heir.take(), self.layout().owner(key)) {
                (Some(heir), _) => (heir, true),
                (None, Some(owner)) => (owner, false),
                (None, None) => return Err(Error::new(ErrorKind::IO, "no master has this slot")),
            };
            let socket = match self.socket(&server).await {
                Err(error) if asking => {
                    self.layout().loses(&server);
                    return Err(astray(&describe(&error)));
                }
                socket => socket?,
            };
            let answers = if asking || with_info {
                socket.send_together(together(name, args.clone(), asking, with_info), left).await
            } else {
                socket.send(name, args.clone(), left).await.map(|answer| vec![answer])
            };
            let Err(error) = answers else { return answers };
            let text = describe(&error);
            match redirect(&text, &server) {
                Some(Redirect::Ask(slot, to)) if !mutant::is("ask") => {
                    self.layout().is_leaving(slot, &to);
                    heir = Some(to);
                }
                Some(Redirect::Moved(slot, to)) => {
                    if !self.layout().moved(slot, &to) {
                        self.look_around().await?;
                    }
                }
                None if text.starts_with("TRYAGAIN") => why = Some(error.clone()),
                _ => return Err(error),
            }
            if why.is_none() && sent_on.get_or_insert_with(Instant::now).elapsed() > DISAGREEMENT {
                return Err(astray(&text));
            }
            tries += 1;
            if tries > 1 {
                let wait = AGAIN * tries;
                if Instant::now() + wait >= deadline {
                    return Err(why.unwrap_or(error));
                }
                sleep(wait).await;
            }
        }
    }
}

/// What belongs to a slot that is on its way to a server that does not answer, or about which masters do not agree: nothing else need
/// wait for it.
fn astray(why: &str) -> Error {
    Error::new(
        ErrorKind::Cluster,
        format!("{ASTRAY} its slot is being moved, and cannot be asked for now: {why}"),
    )
}

/// A command with what must be sent with it: ASKING at a server that is about to get the slot, and INFO around both.
fn together(
    name: &'static str,
    args: Vec<Value>,
    asking: bool,
    with_info: bool,
) -> Vec<(&'static str, Vec<Value>)> {
    let info = || with_info.then(|| ("INFO", vec!["replication".into()]));
    let asking = asking.then(|| ("ASKING", Vec::new()));
    info().into_iter().chain(asking).chain([(name, args)]).chain(info()).collect()
}
