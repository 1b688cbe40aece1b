//! Secrets that change while the node runs: files that hold secrets and keys are read again when what they hold is another
//! thing, and on SIGHUP.
//!
//! What they hold is compared, not their times: Kubernetes swaps a link, and an editor may keep the time. A new value that
//! cannot be used is named in the log, never quoted, and the old one stays. The passwords of Redis are not here: they are
//! read with every new connection; nor is the certificate, which has a watch of its own.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use ring::digest::{SHA256, digest};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    bus::redis::Seal,
    config::{Config, Secret},
    http::InternalState,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What a file holds, as a digest: no second copy of a secret lies in memory. `None`: it cannot be read.
type FileDigest = Option<Vec<u8>>;

fn look(files: &BTreeMap<String, PathBuf>) -> BTreeMap<&str, FileDigest> {
    let content = |path: &PathBuf| Some(digest(&SHA256, &std::fs::read(path).ok()?).as_ref().to_vec());
    files.iter().map(|(key, path)| (key.as_str(), content(path))).collect()
}

/// Catches SIGHUP, which would otherwise end the process. Called first of all, also by nodes that have nothing to read again. `None`:
/// signals cannot be had, and only the regular looks at the files remain.
pub(super) fn hangups() -> Option<Signal> {
    signal(SignalKind::hangup()).ok()
}

/// Watches the files until the node ends.
pub(super) async fn watch(
    config: Config,
    seal: Seal,
    internal: Arc<InternalState>,
    mut hangup: Option<Signal>,
) {
    let files = config.secret_files();
    while files.is_empty() {
        heard(&mut hangup).await;
        tracing::info!("SIGHUP: this node names no file of secrets, so there is nothing to read again");
    }
    let mut seen = look(&files);
    loop {
        let asked = tokio::select! {
            () = tokio::time::sleep(LOOK) => false,
            () = heard(&mut hangup) => true,
        };
        let now = look(&files);
        let changed = files.iter().filter(|(key, _)| now.get(key.as_str()) != seen.get(key.as_str()));
        let changed: Vec<_> = changed.map(|(key, path)| format!("{key} ({})", path.display())).collect();
        if changed.is_empty() && !asked {
            continue;
        }
        seen = now;
        let names = if changed.is_empty() { "none has changed".into() } else { changed.join(", ") };
        match rotate(&config, &seal, &internal) {
            Ok(()) => tracing::info!(changed = names, "the files of secrets were read again"),
            Err(why) => {
                tracing::warn!(
                    changed = names,
                    "secrets cannot be used as they are now, and the old ones stay: {why}"
                );
            }
        }
    }
}

/// SIGHUP.
async fn heard(hangup: &mut Option<Signal>) {
    if let Some(signal) = hangup
        && signal.recv().await.is_some()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// All or nothing: whatever is wrong with one of them, none is replaced.
fn rotate(config: &Config, seal: &Seal, internal: &InternalState) -> Result<(), String> {
    let fresh = config.read_again().map_err(|error| error.to_string().replace('\n', "; "))?;
    let token = fresh.internal.publish_token.clone();
    if token.is_none() != internal.publish_token.load().is_none() {
        return Err("internal.publish_token comes or goes only with a restart".into());
    }
    let mode = fresh.auth_mode().map_err(|error| error.to_string())?;
    let rotated = internal.auth.rotate(mode, &fresh.auth);
    rotated.map_err(|wrong| fresh.complaint(wrong.key, wrong.what).to_string())?;
    internal.publish_token.store(token.map(Arc::new));
    if let Some(secret) = &fresh.redis.node_secret {
        seal.rotate(secret.expose(), fresh.redis.previous_node_secret.as_ref().map(Secret::expose));
    }
    Ok(())
}
