//! `carillon dev`: one node to look around with: in-memory bus, a secret of its own, the demo page.

use std::{
    fmt::Write,
    net::{SocketAddr, TcpListener},
    process::ExitCode,
    time::Duration,
};

use anyhow::anyhow;
use carillon::{
    app::Listeners,
    auth::token::NewToken,
    config::{AuthMode, Config, Jwt, KeySource, Layers, Secret, ValueSource},
};
use clap::Args;

use super::{
    dev_file::DevFile, print, publish::reachable, say, serve::run_node, settings::ConfigFile,
    token::shared_secret,
};

/// How long the printed token is good.
const TOKEN_TTL: Duration = Duration::from_hours(24);

/// Run one node to look around with, and print a link to its demo
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon dev
  carillon dev --redis redis://127.0.0.1:6379 --listen 127.0.0.1:8000")]
pub(super) struct Dev {
    #[command(flatten)]
    file: ConfigFile,
    /// Use this Redis instead of memory
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Public listener; port 0 is any free port [default: the configured http.listen, else 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Internal listener; port 0 is any free port [default: the configured internal.listen]
    #[arg(long, value_name = "ADDRESS")]
    internal: Option<SocketAddr>,
    /// Open the demo in this desktop's browser
    #[arg(long)]
    open: bool,
}

impl Dev {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let secret = || format!("dev-{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let (own, configured) = (secret(), has_keys(self.file.layers()));
        let mut layers = self.file.layers().set_default("auth.mode", "jwt", "carillon dev");
        if !configured {
            layers = layers.set_default("auth.secret", own.as_str(), "carillon dev");
        }
        let mut layers = layers
            .set_default("internal.publish_token", secret(), "carillon dev")
            .set_default("drain.window_seconds", "1", "carillon dev")
            .set_default("drain.grace_seconds", "2", "carillon dev")
            .set_default("http.listen", "127.0.0.1:8080", "carillon dev")
            .set("demo.enabled", "true", "carillon dev");
        let addresses =
            [("http.listen", self.listen, "--listen"), ("internal.listen", self.internal, "--internal")];
        for (key, address, option) in addresses {
            if let Some(address) = address {
                layers = layers.set(key, address.to_string(), option);
            }
        }
        if let Some(url) = &self.redis {
            layers = layers.set("redis.url", url, "--redis");
        }
        let mut config = next_free(layers)?;
        if configured {
            sign_with(&mut config, own);
        }
        let listeners = Listeners::bind(&config).map_err(|error| {
            anyhow!("{error}, with --listen for the public and --internal for the other listener")
        })?;
        let (public, internal) = (listeners.public.local_addr()?, listeners.internal.local_addr()?);
        let secret = shared_secret(&config).map(|(_, secret)| secret.expose().to_owned()).unwrap_or_default();
        let beside = DevFile::write(&config, reachable(public), reachable(internal), &secret);
        print(&tour(&config, public, internal, beside.is_some())?)?;
        if self.open
            && let Err(error) = open::that_detached(demo_url(public))
        {
            say(format_args!(
                "no browser could be opened ({error}): please open {} yourself",
                demo_url(public)
            ));
        }
        let ended = run_node(config, listeners).await;
        drop(beside);
        ended
    }
}

/// Whether tokens are checked with a key that was configured.
fn has_keys(layers: Layers) -> bool {
    const KEYS: [&str; 4] = ["auth.secret", "auth.secret_file", "auth.public_key_file", "auth.jwks"];
    let configured =
        |config: &Config, key| config.source(key).is_some_and(|source| *source != ValueSource::Default);
    let config = layers.set_default("auth.mode", "none", "carillon dev").load();
    config.is_ok_and(|config| KEYS.iter().any(|key| configured(&config, key)))
}

/// Signs with a secret of this process from now on. The demo gives tokens to whoever asks, and where a configured secret
/// is production's, they would be good there. Tokens that the CMS has signed with the configured one are let in still.
fn sign_with(config: &mut Config, own: String) {
    if let Some(AuthMode::Jwt(Jwt { keys: KeySource::Secret { current, previous }, .. })) =
        &mut config.auth.mode
    {
        *previous = Some(std::mem::replace(current, Secret::new(own)));
        say(
            "the demo signs with a secret of its own; tokens that auth.secret has signed are accepted as well",
        );
    }
}

fn demo_url(public: SocketAddr) -> String {
    format!("http://{}/demo/", reachable(public))
}

/// The configuration, with the next free port for each listener whose address nobody chose.
fn next_free(mut layers: Layers) -> anyhow::Result<Config> {
    let config = layers.clone().load()?;
    let listeners = [("http.listen", config.http.listen), ("internal.listen", config.internal.listen)];
    let mut taken = None;
    for (key, wanted) in listeners {
        if !matches!(config.source(key), Some(ValueSource::Default | ValueSource::Command("carillon dev"))) {
            continue;
        }
        let next = |step: u16| Some(SocketAddr::new(wanted.ip(), wanted.port().checked_add(step)?));
        let free = |address: &SocketAddr| Some(*address) != taken && TcpListener::bind(address).is_ok();
        // Where none is free, binding the first one says so.
        let Some(found) = (0..100).filter_map(next).find(free) else { continue };
        if found != wanted {
            say(format_args!("port {} is taken, so {key} is {found}", wanted.port()));
            layers = layers.set(key, found.to_string(), "carillon dev");
        }
        taken = Some(found);
    }
    Ok(layers.load()?)
}

/// What to do next, in lines that work as printed.
fn tour(config: &Config, public: SocketAddr, internal: SocketAddr, beside: bool) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    let program = program.display();
    let base = &config.http.base_path;
    // Beside a node that left its file the commands need no options.
    let publish = if beside {
        format!("{program} publish")
    } else {
        let token = config.internal.publish_token.as_ref().map_or("", |token| token.expose());
        format!("CARILLON__INTERNAL__PUBLISH_TOKEN={token} {program} publish --url http://{internal}")
    };
    let bus = if config.redis.url.is_some() { "Redis" } else { "in memory, nothing survives it" };
    let mut text = format!(
        "
  Carillon {} is running. The bus is {bus}.

  Open the demo                    {}
  Watch the node                   http://{internal}/

  Publish an event                 {publish} comments:42 '{{\"type\":\"comment.created\"}}'
",
        env!("CARGO_PKG_VERSION"),
        demo_url(public),
    );
    if beside {
        writeln!(text, "  Print events as they come        {program} tail comments:42")?;
    }
    if let Ok((jwt, secret)) = shared_secret(config) {
        let token = NewToken {
            sub: "anna".into(),
            ttl: TOKEN_TTL,
            topics: Some(vec!["*".into()]),
            ..NewToken::default()
        };
        let token = token.sign_for(jwt, secret)?;
        write!(
            text,
            "
  Listen with any WebSocket client npx --yes wscat -c 'ws://{public}{base}' -H 'Authorization: Bearer {token}' \\
                                   -w 3600 -x '{{\"type\":\"connect\",\"topics\":[\"comments:42\"]}}'
"
        )?;
    }
    text += "\n  Ctrl-C ends it.\n\n";
    Ok(text)
}
