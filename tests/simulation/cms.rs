//! The CMS that nodes ask who somebody is, where their editors show cookies: it knows everybody, takes its time, and is
//! away now and then. It is the nodes that have to see which of its answers came too late.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use carillon::{auth::ScriptedCms, protocol::time::now_ms};
use hyper::{HeaderMap, StatusCode, header};
use tokio::sync::oneshot;

use crate::world::{EPOCH, Happening, World};

/// A question, until it is answered.
#[derive(Debug)]
pub(crate) struct Question {
    client: usize,
    user: String,
    answer: oneshot::Sender<(StatusCode, Bytes)>,
}

#[derive(Debug, Default)]
struct State {
    asked: Vec<Question>,
    /// When it was last asked about each client, virtual ms.
    last: Vec<Option<u64>>,
    /// By how much it answers late, and until when, ms.
    slow: (u64, u64),
    /// Until when it is away, ms.
    away: u64,
}

/// The CMS.
#[derive(Debug)]
pub(crate) struct Cms(Mutex<State>);

impl Cms {
    /// One that knows so many clients.
    pub(crate) fn new(clients: usize) -> Self {
        Self(Mutex::new(State { last: vec![None; clients], ..State::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("the CMS")
    }

    /// When it was last asked about a client.
    pub(crate) fn last_asked(&self, client: usize) -> Option<u64> {
        self.lock().last[client]
    }

    /// It answers late for a while.
    pub(crate) fn be_slow(&self, by: u64, until: u64) {
        self.lock().slow = (by, until);
    }

    /// It does not answer for a while.
    pub(crate) fn be_away(&self, until: u64) {
        self.lock().away = until;
    }
}

impl ScriptedCms for Cms {
    fn ask(&self, headers: &HeaderMap) -> oneshot::Receiver<(StatusCode, Bytes)> {
        let (answer, receiver) = oneshot::channel();
        let shown =
            headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let mut words = shown.split(' ').skip(1);
        let client = words.next().and_then(|client| client.parse().ok());
        if let (Some(client), Some(user)) = (client, words.next()) {
            let mut state = self.lock();
            state.last[client] = Some(now_ms() - EPOCH);
            state.asked.push(Question { client, user: user.to_owned(), answer });
        }
        receiver
    }
}

impl World {
    /// Questions that the CMS was asked are answered a little later.
    pub(crate) fn hear_cms(&mut self) {
        let asked = std::mem::take(&mut self.people.cms.lock().asked);
        for question in asked {
            let (by, until) = self.people.cms.lock().slow;
            let late = if until > self.now { by } else { 0 };
            let at = self.now + self.delay() + late + self.delay();
            self.at(at, Happening::CmsSays(question));
        }
    }

    /// The CMS answers.
    pub(crate) fn cms_says(&mut self, question: Question) {
        let Question { client, user, answer } = question;
        self.note(|_| format!("   the CMS says that client {client} is {user}"));
        if self.people.cms.lock().away > self.now {
            if self.chance(0.5) {
                // Nobody waits for it any more: no wonder.
                let _ = answer.send((StatusCode::BAD_GATEWAY, Bytes::new()));
            }
            return;
        }
        let life = if self.chance(0.3) { 15 } else { 600 };
        let text = format!(r#"{{"sub":"{user}","topics":["*"],"expires_in":{life}}}"#);
        let _ = answer.send((StatusCode::OK, Bytes::from(text)));
        // Whoever is in already does not come back by being asked about once more.
        if self.people.all.get(client).is_some_and(|person| person.at_door) {
            self.excuse_unmarked(client);
        }
    }
}
