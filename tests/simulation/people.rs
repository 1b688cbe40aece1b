//! Who the clients are, in schedules that are about that: two of them are one editor. Each shows a token that it was given,
//! or a cookie that the node asks the CMS about; some show what is good no longer, or say `connect` long after the
//! handshake. Whoever is refused gets new papers sooner or later.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use carillon::{
    app::wiring,
    auth::{AuthError, Authenticator, CallbackContext, Credentials, token},
    config::{Algorithm, Config, Layers, Secret},
    session::Caller,
};
use serde_json::{Value, json};

use crate::{
    cms::Cms,
    node::areas,
    orders::{Kept, Order},
    plan::{ProofBy, Way},
    world::{EPOCH, Happening, World},
};

const SECRET: &str = "the secret of a simulated CMS, 32 bytes or more";
/// By how much the clocks of those who sign are ahead, s.
const AHEAD: [i64; 4] = [0, -3, 0, 12];
/// From when on, after the last step, whoever is refused gets new papers every time, ms.
const HONEST: u64 = 20_000;

/// For how long after new papers were taken a session may be closed for those before: the order came first at the relay, ms.
const OVERTAKEN: u64 = 1_000;

/// What somebody proves who they are with.
#[derive(Debug, Clone)]
pub(crate) struct Papers {
    /// The token, or what stands for the cookie.
    pub text: String,
    /// `iat`, seconds since 1970.
    pub issued: u64,
    /// `sid`.
    pub sid: String,
    /// `jti`.
    pub jti: String,
    /// When they were shown, virtual ms.
    pub shown: u64,
}

/// What became of it at the door, or of the session later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was let in, and the relay is about to hear of it.
    Open,
    /// Nobody could be asked.
    Away,
    /// Refused, or closed: why.
    Out(String),
}

/// A client as a person.
#[derive(Debug)]
pub(crate) struct Person {
    /// The editor.
    pub user: String,
    /// What it shows next.
    pub papers: Papers,
    /// What its present connection was let in with.
    pub visit: Papers,
    /// The papers that others have taken the place of, and when; virtual ms.
    pub before: Vec<(Papers, u64)>,
    /// What it has brought since, until that is answered: answers come in the order of the questions.
    pub bringing: VecDeque<Papers>,
    /// The name of its session.
    pub session: Option<String>,
    /// When it said `connect`, or came without; virtual ms.
    pub said: u64,
    /// Until when it shows its old papers again and again.
    pub stubborn: u64,
    /// How long its next connection takes from the handshake to the session, ms.
    pub dawdles: u64,
    /// Since when it has been refused again and again.
    pub refused: Option<u64>,
    /// It is being judged, and not yet in.
    pub at_door: bool,
    verdict: Arc<Mutex<Option<Verdict>>>,
    issued: u64,
}

/// Everybody, and what operators have ordered.
pub(crate) struct People {
    /// How they prove who they are; `None`: that is not what the schedule is about.
    pub proof: Option<ProofBy>,
    /// By client.
    pub all: Vec<Person>,
    /// What operators have ordered.
    pub orders: Vec<Order>,
    /// What Redis keeps of it.
    pub kept: Kept,
    /// Whom nodes ask.
    pub cms: Arc<Cms>,
    /// When each event was published, by number.
    pub published: Vec<u64>,
}

/// The door of a node for one connection.
pub(crate) struct Door {
    auth: Authenticator,
    /// `None`: the token comes with `connect`.
    credentials: Option<Credentials>,
    /// Whether the CMS is asked anew.
    anew: bool,
    dawdles: Duration,
    verdict: Arc<Mutex<Option<Verdict>>>,
}

impl Door {
    /// Whether anybody may come in as yet.
    pub(crate) fn is_open(&self) -> bool {
        self.credentials.is_none()
    }

    /// Judges whoever came, as the node's own doors do.
    pub(crate) async fn open(self) -> Option<Caller> {
        let told = self.auth.can_renew().then(Box::<CallbackContext>::default);
        let Some(credentials) = self.credentials else {
            return Some(Caller { callback_context: told, ..Caller::default() });
        };
        let judged = if self.anew {
            self.auth.renew(&credentials).await
        } else {
            self.auth.authenticate(&credentials).await
        };
        let verdict = match &judged {
            Ok(_) => Verdict::Open,
            Err(AuthError::Away(_)) => Verdict::Away,
            Err(error) => Verdict::Out(error.to_string()),
        };
        if judged.is_ok() && !self.dawdles.is_zero() {
            tokio::time::sleep(self.dawdles).await;
        }
        *self.verdict.lock().expect("a verdict") = Some(verdict);
        let credentials = self.auth.can_renew().then(|| Box::new(credentials));
        Some(Caller { identity: Some(Box::new(judged.ok()?)), credentials, callback_context: told })
    }
}

/// The configuration of nodes whose editors prove who they are.
fn config(proof: ProofBy) -> &'static Config {
    static CONFIGS: OnceLock<[Config; 2]> = OnceLock::new();
    let load = |mode: &str| {
        let layers =
            Layers::new().set("auth.mode", mode, "simulation").set("auth.default_topics", "*", "simulation");
        let layers = if mode == "jwt" {
            layers.set("auth.secret", SECRET, "simulation")
        } else {
            layers.set("auth.callback_url", "http://127.0.0.1:9/who", "simulation")
        };
        layers.load().expect("a configuration")
    };
    let configs = CONFIGS.get_or_init(|| [load("jwt"), load("callback")]);
    &configs[usize::from(proof == ProofBy::Cms)]
}

impl People {
    /// The people of a schedule with so many clients.
    pub(crate) fn new(proof: Option<ProofBy>, clients: usize) -> Self {
        let all = if proof.is_some() { clients } else { 0 };
        Self {
            proof,
            all: (0..all).map(Person::new).collect(),
            orders: Vec::new(),
            kept: Kept::default(),
            cms: Arc::new(Cms::new(all)),
            published: vec![0],
        }
    }

    /// A new node's door.
    pub(crate) fn authenticator(&self) -> Option<Authenticator> {
        let config = config(self.proof?);
        let auth = wiring::authenticator(config, &areas()).expect("an authenticator");
        Some(auth.asking(self.cms.clone(), config.auth_mode().expect("a mode")).expect("a CMS"))
    }
}

impl Person {
    fn new(client: usize) -> Self {
        let mut person = Self {
            user: format!("editor-{}", client / 2),
            papers: Papers {
                text: String::new(),
                issued: 0,
                sid: String::new(),
                jti: String::new(),
                shown: 0,
            },
            visit: Papers {
                text: String::new(),
                issued: 0,
                sid: String::new(),
                jti: String::new(),
                shown: 0,
            },
            before: Vec::new(),
            bringing: VecDeque::new(),
            session: None,
            said: 0,
            stubborn: 0,
            dawdles: 0,
            refused: None,
            at_door: false,
            verdict: Arc::default(),
            issued: 0,
        };
        person.sign_in(client, 0);
        person
    }

    /// Gets new papers.
    fn sign_in(&mut self, client: usize, now: u64) {
        self.issued += 1;
        let issued = ((EPOCH + now) / 1000).saturating_add_signed(AHEAD[client % AHEAD.len()]);
        let (sid, jti) =
            (format!("browser-{client}-{}", self.issued), format!("token-{client}-{}", self.issued));
        let claims = json!({
            "sub": self.user, "iat": issued, "exp": issued + 80_000, "sid": sid, "jti": jti, "topics": ["*"],
        });
        let text = token::sign(&claims, &Secret::new(SECRET), Algorithm::Hs256).expect("a token");
        self.papers = Papers { text, issued, sid, jti, shown: now };
    }
}

impl World {
    /// Whether the schedule is about who people are.
    pub(crate) fn has_people(&self) -> bool {
        self.people.proof.is_some()
    }

    /// A client is about to connect: whether it does so now. Whoever was refused waits a little, and perhaps gets new
    /// papers meanwhile.
    pub(crate) fn is_ready(&mut self, client: usize) -> bool {
        let Some(person) = self.people.all.get_mut(client) else { return true };
        let verdict = person.verdict.lock().expect("a verdict").take();
        let Some(verdict) = verdict.filter(|verdict| *verdict != Verdict::Open) else { return true };
        self.audit_refused(client, &verdict);
        let last = self.plan.steps.last().map_or(0, |step| step.at);
        let (now, honest, hops) = (self.now, self.now > last + HONEST || self.chance(0.5), self.chance(0.5));
        let person = &mut self.people.all[client];
        (person.session, person.at_door) = (None, false);
        person.refused.get_or_insert(now);
        if matches!(verdict, Verdict::Out(_)) && now >= person.stubborn && honest {
            person.sign_in(client, now);
        }
        let (later, nodes) = (300 + self.pick(900), self.nodes.len());
        let me = &mut self.clients[client];
        if hops {
            me.node = (me.node + 1) % nodes;
        }
        // What a poll missed meanwhile it is told when it comes in again.
        me.cut_until = now + later;
        let life = me.life;
        self.at(now + later, Happening::Connect { client, life });
        false
    }

    /// How a client comes in, and how long after the handshake it says `connect`.
    pub(crate) fn door(&mut self, client: usize, auth: &Authenticator) -> Option<(Door, u64)> {
        let proof = self.people.proof?;
        let (by_message, now) = (self.chance(0.4), self.now);
        let me = &self.clients[client];
        let is_socket = matches!(me.way, Way::Socket | Way::Stream);
        let anew = me.way != Way::Poll || me.cursor.is_none();
        let person = &mut self.people.all[client];
        let dawdles = std::mem::take(&mut person.dawdles);
        let credentials = match proof {
            ProofBy::Token => Credentials::default().with_token(&*person.papers.text),
            ProofBy::Cms => Credentials {
                authorization: Some(format!("Bearer {client} {}", person.user).into_bytes()),
                ..Credentials::default()
            },
        };
        person.papers.shown = now;
        person.visit = person.papers.clone();
        person.bringing.clear();
        person.before.clear();
        (person.session, person.verdict, person.at_door) = (None, Arc::default(), true);
        person.said = if is_socket { now + dawdles } else { now };
        let by_message = is_socket && by_message && proof == ProofBy::Token;
        let door = Door {
            auth: auth.clone(),
            credentials: (!by_message).then_some(credentials),
            anew,
            dawdles: Duration::from_millis(if is_socket { 0 } else { dawdles }),
            verdict: Arc::clone(&person.verdict),
        };
        if !is_socket && dawdles > 0 {
            // Who waits at the door is not back yet.
            self.clients[client].cut_until = now + dawdles;
        }
        Some((door, if is_socket { dawdles } else { 0 }))
    }

    /// The first message of a client with a WebSocket: the token is in it where none came with the handshake.
    pub(crate) fn introduce(&mut self, client: usize, by_message: bool) {
        let me = &self.clients[client];
        let mut connect = json!({ "type": "connect", "topics": me.subjects, "resume": me.resume() });
        if by_message && let Some(person) = self.people.all.get(client) {
            connect["token"] = person.visit.text.as_str().into();
        }
        self.say(client, &connect);
    }

    /// What only people care about in a message.
    pub(crate) fn hear_as_person(&mut self, client: usize, kind: &str, message: &Value) {
        if self.people.all.get(client).is_none() {
            return;
        }
        match kind {
            "welcome" => {
                self.audit_let_in(client);
                let person = &mut self.people.all[client];
                person.session = message["session"].as_str().map(str::to_owned);
                person.refused = None;
            }
            "event" => {
                let number = message["event"]["data"]["n"].as_u64().unwrap_or(0) as usize;
                self.people.all[client].refused = None;
                self.audit_heard(client, self.people.published[number]);
            }
            "closing" if matches!(message["code"].as_u64(), Some(4401 | 4403)) => {
                let (why, now) = (message["reason"].as_str().unwrap_or_default().to_owned(), self.now);
                let person = &mut self.people.all[client];
                person.before.retain(|(_, taken)| *taken + OVERTAKEN >= now);
                *person.verdict.lock().expect("a verdict") = Some(Verdict::Out(why));
            }
            "token-expiring" => self.expires(client),
            "token-accepted" => {
                let person = &mut self.people.all[client];
                if let Some(papers) = person.bringing.pop_front() {
                    person.before.push((std::mem::replace(&mut person.visit, papers), self.now));
                }
            }
            "error" => self.audit_bad_token(client, message),
            _ => {}
        }
    }

    /// The node wants to see new papers: most bring some, some bring what they have, some nothing.
    fn expires(&mut self, client: usize) {
        let (choice, later, life) = (self.pick(20), self.pick(4_000), self.clients[client].life);
        if choice > 2 {
            let old = choice < 6;
            self.at(self.now + later, Happening::Bring { client, life, old });
        }
    }

    /// A client brings papers: new ones, or the same once more.
    pub(crate) fn bring(&mut self, client: usize, old: bool) {
        let (now, life) = (self.now, self.clients[client].life);
        let Some(person) = self.people.all.get_mut(client) else { return };
        if !old {
            person.sign_in(client, now);
        }
        if !matches!(self.clients[client].way, Way::Socket | Way::Stream) {
            if !matches!(self.clients[client].line, crate::client::Line::None) {
                self.hang_up(client, 0, 20, None);
            }
            return;
        }
        let token = self.people.proof == Some(ProofBy::Token);
        if !self.clients[client].welcomed || !token || self.clients[client].life != life {
            return;
        }
        let person = &mut self.people.all[client];
        person.papers.shown = now;
        person.bringing.push_back(person.papers.clone());
        let message = json!({ "type": "token", "token": person.papers.text });
        self.say(client, &message);
    }

    /// Doors that have opened, and what the CMS is asked.
    pub(crate) fn look_at_doors(&mut self) {
        for client in 0..self.people.all.len() {
            let mut verdict = self.people.all[client].verdict.lock().expect("a verdict");
            let opened = *verdict == Some(Verdict::Open);
            if opened {
                *verdict = None;
            }
            drop(verdict);
            if opened {
                // It comes only now.
                self.people.all[client].at_door = false;
                self.excuse_unmarked(client);
            }
        }
        self.hear_cms();
    }
}
