//! The demo: a page like the editing UI of a CMS, and the simulated CMS behind it (`demo/API.md`).
//!
//! Served in `dev` and where `demo.enabled` says so. It publishes through the node's bus, exactly as a real CMS would
//! through Redis.

mod cms;
mod objects;

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use self::cms::{DemoChange, DemoCms, Poke, Write};
use super::{Origins, listener::Peer};
use crate::{
    bus::Bus,
    protocol::{Areas, Event, Problem, ProblemCode, Topic, time},
};

/// Everything that the page needs is its own.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    worker-src 'self'; frame-src 'self'; frame-ancestors 'self'; base-uri 'none'; form-action 'none'";
/// The largest body of a write, bytes.
const BODY: usize = 16 * 1024;

/// Makes a token for an editor that lasts so many seconds; an error where the node cannot sign.
pub type Mint = Arc<dyn Fn(&str, u64) -> Result<Minted, Problem> + Send + Sync>;

/// What a page connects with.
#[derive(Debug, serde::Serialize)]
pub struct Minted {
    /// The token; `None` with `auth.mode = "none"`.
    pub token: Option<String>,
    /// Seconds until it ends.
    pub expires_in: Option<u64>,
    /// Who it is for.
    pub sub: String,
}

/// What the demo needs of its node.
#[derive(Clone)]
pub struct Settings {
    /// Where pokes are published.
    pub bus: Bus,
    /// The configured areas.
    pub areas: Areas,
    /// `limits.event_bytes`.
    pub event_bytes: usize,
    /// The node's name.
    pub node: String,
    /// `http.base_path`.
    pub base_path: String,
    /// Tells its own page from others: only that one may write, whatever `http.allowed_origins` says.
    pub origins: Origins,
    /// How tokens are made.
    pub mint: Mint,
}

struct DemoApp {
    settings: Settings,
    cms: Mutex<DemoCms>,
}

type DemoState = State<Arc<DemoApp>>;

/// The routes below `/demo`.
pub fn routes(settings: Settings) -> Result<Router, serde_json::Error> {
    let demo = Arc::new(DemoApp { settings, cms: Mutex::new(DemoCms::seed()?) });
    let api = Router::new()
        .route("/setup", get(setup))
        .route(
            "/state",
            get(|State(demo): DemoState| async move { answer(demo.look(|cms| Ok(cms.state()))) }),
        )
        .route(
            "/projects",
            get(|State(demo): DemoState| async move { answer(demo.look(|cms| Ok(cms.projects()))) }),
        )
        .route("/projects/{project}/items", get(items))
        .route("/projects/{project}/comments", get(comments).post(comment))
        .route("/projects/{project}/items/{item}/move", post(move_item))
        .route("/projects/{project}/items/{item}/approve", post(approve))
        .route("/projects/{project}/status", post(set_status))
        .route("/content/{content}", get(content))
        .route("/content/{content}/save", post(save))
        .route("/notifications", get(notifications))
        .route("/notifications/read", post(read))
        .route("/notify", post(notify))
        .route("/token", post(token))
        .fallback(|| async {
            refuse(&Problem::new(404, ProblemCode::NotFound, "Not found", "See demo/API.md for the paths."))
        })
        .method_not_allowed_fallback(|| async {
            refuse(&Problem::new(
                405,
                ProblemCode::NotAllowed,
                "Method not allowed",
                "See demo/API.md for the methods.",
            ))
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(from_fn_with_state(Arc::clone(&demo), from_own_page));
    Ok(Router::new()
        // Whoever opens the bare address wants to see something.
        .route("/", get(|| async { Redirect::temporary("/demo/") }))
        .route("/demo", get(|| async { Redirect::permanent("/demo/") }))
        .route("/demo/", get(|| async { file("index.html") }))
        .route("/demo/{file}", get(|Path(name): Path<String>| async move { file(&name) }))
        .nest("/demo/api", api)
        .with_state(demo))
}

/// Writes, and tokens, are for the demo's own page, and for programs: a page of another site is not to use the browser of
/// somebody who can reach this node.
async fn from_own_page(State(demo): DemoState, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let headers = request.headers();
    let site = headers.get("sec-fetch-site").map_or(&b"none"[..], HeaderValue::as_bytes);
    let checked = match request.extensions().get::<Peer>() {
        Some(peer) if site == b"none" || site == b"same-origin" => {
            demo.settings.origins.check(headers, *peer)
        }
        _ => Err(Problem::new(
            403,
            ProblemCode::Origin,
            "Origin not allowed",
            "Only the demo's own page may write here.",
        )),
    };
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => refuse(&problem),
    }
}

fn file(name: &str) -> Response {
    let (kind, bytes): (&str, &'static [u8]) = match name {
        "index.html" => ("text/html", include_bytes!("../../../demo/index.html")),
        "demo.css" => ("text/css", include_bytes!("../../../demo/demo.css")),
        "demo.js" => ("text/javascript", include_bytes!("../../../demo/demo.js")),
        "pane.html" => ("text/html", include_bytes!("../../../demo/pane.html")),
        "pane.css" => ("text/css", include_bytes!("../../../demo/pane.css")),
        "pane.js" => ("text/javascript", include_bytes!("../../../demo/pane.js")),
        "tools.js" => ("text/javascript", include_bytes!("../../../demo/tools.js")),
        "toasts.js" => ("text/javascript", include_bytes!("../../../demo/toasts.js")),
        "log.js" => ("text/javascript", include_bytes!("../../../demo/log.js")),
        "icon.svg" => ("image/svg+xml", include_bytes!("../../../demo/icon.svg")),
        _ => {
            return refuse(&Problem::new(
                404,
                ProblemCode::NotFound,
                "Not found",
                "The demo has no such file.",
            ));
        }
    };
    let mut response = bytes.into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&format!("{kind}; charset=utf-8")) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

async fn setup(State(demo): DemoState) -> Response {
    let settings = &demo.settings;
    let head = json!({
        "realtime": settings.base_path, "node": settings.node, "version": env!("CARGO_PKG_VERSION"),
    });
    answer(demo.look(|cms| {
        let mut setup = head;
        setup["editors"] = json!(cms.editors);
        Ok(setup)
    }))
}

async fn items(State(demo): DemoState, Path(project): Path<u64>) -> Response {
    answer(demo.look(|cms| cms.items(project)))
}

async fn comments(State(demo): DemoState, Path(project): Path<u64>) -> Response {
    answer(demo.look(|cms| cms.comments(project)))
}

async fn content(State(demo): DemoState, Path(id): Path<String>) -> Response {
    answer(demo.look(|cms| cms.content(&id)))
}

#[derive(Deserialize)]
struct Who {
    #[serde(default)]
    editor: String,
}

async fn notifications(State(demo): DemoState, Query(who): Query<Who>) -> Response {
    answer(demo.look(|cms| cms.notifications(&who.editor)))
}

async fn comment(State(demo): DemoState, Path(project): Path<u64>, body: Body) -> Response {
    demo.write(body, StatusCode::CREATED, |cms, write| cms.comment(project, write)).await
}

async fn move_item(
    State(demo): DemoState,
    Path((project, item)): Path<(u64, String)>,
    body: Body,
) -> Response {
    demo.write(body, StatusCode::OK, |cms, write| cms.move_item(project, &item, write)).await
}

async fn approve(State(demo): DemoState, Path((project, item)): Path<(u64, String)>, body: Body) -> Response {
    demo.write(body, StatusCode::OK, |cms, write| cms.approve(project, &item, write)).await
}

async fn set_status(State(demo): DemoState, Path(project): Path<u64>, body: Body) -> Response {
    demo.write(body, StatusCode::OK, |cms, write| cms.set_status(project, write)).await
}

async fn save(State(demo): DemoState, Path(id): Path<String>, body: Body) -> Response {
    demo.write(body, StatusCode::OK, |cms, write| cms.save(&id, write)).await
}

async fn notify(State(demo): DemoState, body: Body) -> Response {
    demo.write(body, StatusCode::CREATED, DemoCms::notify).await
}

async fn read(State(demo): DemoState, body: Body) -> Response {
    demo.write(body, StatusCode::OK, DemoCms::read).await
}

#[derive(Deserialize)]
struct Ask {
    #[serde(default)]
    editor: String,
    #[serde(default = "ten_minutes")]
    ttl: u64,
}

fn ten_minutes() -> u64 {
    600
}

async fn token(State(demo): DemoState, body: Body) -> Response {
    answer(parse::<Ask>(body).and_then(|ask| {
        demo.look(|cms| cms.editor(&ask.editor).map(|_| Value::Null))?;
        let minted = (demo.settings.mint)(&ask.editor, ask.ttl.clamp(1, 3600))?;
        Ok(json!(minted))
    }))
}

type Body = Result<axum::body::Bytes, axum::extract::rejection::BytesRejection>;

fn parse<T: for<'de> Deserialize<'de>>(body: Body) -> Result<T, Problem> {
    let too_large =
        || Problem::new(413, ProblemCode::TooLarge, "Body too large", format!("At most {BODY} bytes."));
    let body = body.map_err(|_| too_large())?;
    serde_json::from_slice(&body)
        .map_err(|e| Problem::new(400, ProblemCode::BadRequest, "Not the JSON it should be", e.to_string()))
}

fn answer(result: Result<Value, Problem>) -> Response {
    match result {
        Ok(value) => no_store(Json(value).into_response()),
        Err(problem) => refuse(&problem),
    }
}

fn refuse(problem: &Problem) -> Response {
    let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(problem)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    no_store(response)
}

fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl DemoApp {
    fn look(&self, question: impl FnOnce(&DemoCms) -> Result<Value, Problem>) -> Result<Value, Problem> {
        question(&self.cms.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the state first, then publishes, as a CMS does after its commit.
    async fn write(
        &self,
        body: Body,
        status: StatusCode,
        change: impl FnOnce(&mut DemoCms, &Write) -> Result<DemoChange, Problem>,
    ) -> Response {
        let changed = parse::<Write>(body).and_then(|write| {
            if write.origin.as_ref().is_some_and(|origin| origin.len() > 64) {
                return Err(Problem::new(
                    400,
                    ProblemCode::BadRequest,
                    "Bad request",
                    "\"origin\" has at most 64 bytes.",
                ));
            }
            let mut cms = self.cms.lock().unwrap_or_else(PoisonError::into_inner);
            Ok((change(&mut cms, &write)?, write))
        });
        let (change, write) = match changed {
            Ok(changed) => changed,
            Err(problem) => return refuse(&problem),
        };
        let mut result = json!({ change.name: change.value });
        let mut published = Vec::new();
        for poke in change.pokes {
            match self.publish(&poke, &write).await {
                Ok(position) => {
                    published.push(json!({ "topic": poke.topic, "type": poke.kind, "position": position }));
                }
                Err(error) => {
                    result["publish_error"] = error.into();
                    break;
                }
            }
        }
        result["published"] = published.into();
        let mut response = answer(Ok(result));
        *response.status_mut() = status;
        response
    }

    async fn publish(&self, poke: &Poke, write: &Write) -> Result<String, String> {
        let mut event = json!({
            "id": format!("{:032x}", rand::random::<u128>()), "type": poke.kind, "time": time::rfc3339(time::now_ms()),
            "source": "demo-cms", "actor": write.editor,
        });
        if let Some(origin) = &write.origin {
            event["origin"] = origin.as_str().into();
        }
        event["data"] = poke.data.clone();
        let topic = Topic::parse_named(&poke.topic, &self.settings.areas).map_err(|e| e.to_string())?;
        let event =
            Event::parse(event.to_string().into(), self.settings.event_bytes).map_err(|e| e.to_string())?;
        let id = self.settings.bus.publish(topic, event).await.map_err(|e| e.to_string())?;
        Ok(id.to_string())
    }
}
