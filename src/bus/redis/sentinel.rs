//! Asking sentinels where the master is.
//!
//! Every error names the sentinel and says what to do.

use std::sync::Arc;

use fred::prelude::{Error, Server};

use super::{
    fault::{ConnectError, describe},
    reply,
    server_socket::{ConnectParams, PATIENCE, ServerSocket},
    slots,
    socket::RedisSocket,
    target::{Access, RedisCredentials},
};
use crate::shutdown::Tasks;

/// The master, as the first sentinel says that knows.
pub(super) async fn master(access: &Access, tasks: &Tasks) -> Result<Server, ConnectError> {
    let mut obstacles = Vec::new();
    for sentinel in &access.hosts {
        match ask(access, sentinel, tasks).await {
            Ok(master) => return Ok(master),
            Err(connect_error) => obstacles.push(connect_error),
        }
    }
    // One that may answer later is worth waiting for.
    let lasting = obstacles.iter().all(|connect_error| matches!(connect_error, ConnectError::Permanent(_)));
    let texts = obstacles.into_iter().map(ConnectError::into_text).collect::<Vec<_>>().join("; ");
    Err(if lasting { ConnectError::Permanent(texts) } else { ConnectError::Transient(texts) })
}

async fn ask(access: &Access, sentinel: &Server, tasks: &Tasks) -> Result<Server, ConnectError> {
    let socket = enter(access, sentinel, tasks).await.map_err(|error| refused(&error, sentinel, access))?;
    let question = vec!["GET-MASTER-ADDR-BY-NAME".into(), access.service.as_str().into()];
    let answer = socket.send("SENTINEL", question, PATIENCE).await;
    let mut answer = reply::items(answer.map_err(|error| refused(&error, sentinel, access))?).into_iter();
    let (host, port) = (answer.next().map(reply::text), answer.next().map(reply::text));
    if let (Some(host), Some(Ok(port))) = (host, port.map(|port| port.parse())) {
        return Ok(slots::announced(&host, port, sentinel));
    }
    let masters = socket.send("SENTINEL", vec!["MASTERS".into()], PATIENCE).await;
    let known = masters.map(reply::items).unwrap_or_default().into_iter().filter_map(|master| {
        reply::pairs(master).into_iter().find_map(|(name, value)| (name == "name").then_some(value))
    });
    let known = known.collect::<Vec<_>>();
    let watched = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(ConnectError::Permanent(format!(
        "the sentinel at {sentinel} does not know the service {:?} (it watches: {watched}): correct the name at the end of \
         redis.url",
        access.service
    )))
}

/// Connects with the sentinels' own credentials, where they are configured; else without any, and where a sentinel wants
/// some with those of Redis.
async fn enter(access: &Access, sentinel: &Server, tasks: &Tasks) -> Result<RedisSocket, Error> {
    let open = async |who: &RedisCredentials| {
        let params = ConnectParams { access, server: sentinel, who, ending: &Arc::default(), tasks };
        RedisSocket::connect(params, true).await
    };
    if let Some(own) = &access.sentinel {
        return open(own).await;
    }
    let without = open(&RedisCredentials::default()).await;
    match without {
        Err(error) if describe(&error).starts_with("NOAUTH") && access.redis.password.is_some() => {
            let same = open(&access.redis).await;
            match same {
                // The user may be one of Redis alone.
                Err(_) if access.redis.username.is_some() => {
                    open(&RedisCredentials { username: None, ..access.redis.clone() }).await
                }
                other => other,
            }
        }
        other => other,
    }
}

fn refused(error: &Error, sentinel: &Server, access: &Access) -> ConnectError {
    let text = describe(error);
    let own = access.sentinel.is_some();
    match text.split(' ').next().unwrap_or_default() {
        "NOAUTH" => ConnectError::Permanent(format!(
            "the sentinel at {sentinel} wants a password: set redis.sentinel_password (and redis.sentinel_username for an \
             ACL user)"
        )),
        "WRONGPASS" if own => ConnectError::Permanent(format!(
            "the sentinel at {sentinel} does not accept the user name or password: correct redis.sentinel_username and \
             redis.sentinel_password"
        )),
        "WRONGPASS" => ConnectError::Permanent(format!(
            "the sentinel at {sentinel} does not accept the password of Redis: set its own in redis.sentinel_password"
        )),
        "NOPERM" => ConnectError::Permanent(format!(
            "the sentinel at {sentinel} refuses a right that is needed ({text}): allow +sentinel|get-master-addr-by-name, \
             +ping and +auth to this user"
        )),
        "ERR" if text.to_lowercase().contains("unknown command") => ConnectError::Permanent(format!(
            "the server at {sentinel} is no sentinel but a Redis: name sentinels in redis.url (their port is 26379 as a \
             rule), or write redis://{sentinel}"
        )),
        _ => ConnectError::Transient(format!("the sentinel at {sentinel} cannot be asked: {text}")),
    }
}
