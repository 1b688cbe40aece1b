//! What a running `carillon dev` leaves for `publish` and `tail` of the same user: its addresses and secrets, as a
//! configuration file that only this user may read.
//!
//! It counts less than anything that was configured, and only as long as its node runs: the node holds a lock on the
//! file, which the system takes away when the process ends, however it ends.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use carillon::config::{Config, Layers, user_state_dir};

use super::say;

/// Who says what stands in the file, for messages.
const BY: &str = "the running carillon dev";
/// The keys that are left.
const KEYS: [&str; 4] = ["http.listen", "internal.listen", "internal.publish_token", "auth.secret"];

/// The file of this process; it goes when this is dropped.
#[derive(Debug)]
pub(super) struct DevFile {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Drop for DevFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl DevFile {
    /// Writes the file. `None` where the user has no place for it, or it cannot be written: `dev` works without.
    pub(super) fn write(
        config: &Config,
        public: SocketAddr,
        internal: SocketAddr,
        secret: &str,
    ) -> Option<Self> {
        let folder = user_state_dir()?;
        Self::write_in(&folder, config, public, internal, secret).ok()
    }

    fn write_in(
        folder: &Path,
        config: &Config,
        public: SocketAddr,
        internal: SocketAddr,
        secret: &str,
    ) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        let path = folder.join(format!("dev-{}.toml", internal.port()));
        // A file of a dead process may have looser permissions or another owner.
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.lock()?;
        let token = config.internal.publish_token.as_ref().map_or("", |token| token.expose());
        let values = [public.to_string(), internal.to_string(), token.to_owned(), secret.to_owned()];
        for (key, value) in KEYS.iter().zip(values) {
            writeln!(file, "{key} = {}", serde_json::Value::from(value))?;
        }
        Ok(Self { path, _file: file })
    }
}

/// Adds what the youngest running `carillon dev` left, as the weakest of all layers, and says so on standard error.
/// Leaves the layers alone where there is none.
pub(super) fn add_to(layers: Layers) -> Layers {
    let Some(values) = user_state_dir().and_then(|folder| youngest(&folder)) else { return layers };
    let address = |key| values.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value.as_str());
    say(format_args!(
        "using the running `carillon dev` at http://{} (internal: http://{})",
        address("http.listen"),
        address("internal.listen")
    ));
    let layers =
        if address("auth.secret").is_empty() { layers } else { layers.set_default("auth.mode", "jwt", BY) };
    let set = |layers: Layers, (key, value): &(String, String)| layers.set_default(key, value.as_str(), BY);
    values.iter().filter(|(_, value)| !value.is_empty()).fold(layers, set)
}

fn youngest(folder: &Path) -> Option<Vec<(String, String)>> {
    let folder_owner = fs::metadata(folder).ok()?.uid();
    let mut found: Vec<(SystemTime, Vec<(String, String)>)> = Vec::new();
    for path in fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("dev-") || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let Ok(mut file) = File::open(&path) else { continue };
        let Ok(metadata) = file.metadata() else { continue };
        // Somebody else's file, or one that others may have written to, is not believed.
        if metadata.uid() != folder_owner || metadata.mode() & 0o077 != 0 {
            continue;
        }
        if file.try_lock_shared().is_ok() {
            // Nobody holds it: its process is dead.
            let _ = fs::remove_file(&path);
            continue;
        }
        let mut text = String::new();
        if file.read_to_string(&mut text).is_ok() {
            found.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), values(&text)));
        }
    }
    found.into_iter().max_by_key(|(written, _)| *written).map(|(_, values)| values)
}

fn values(text: &str) -> Vec<(String, String)> {
    let known = |line: &str| {
        let (key, value) = line.split_once(" = ")?;
        let value: String = serde_json::from_str(value).ok()?;
        KEYS.contains(&key).then(|| (key.to_owned(), value))
    };
    text.lines().filter_map(known).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> (SocketAddr, SocketAddr) {
        ("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:9090".parse().unwrap())
    }

    #[test]
    fn a_file_is_private_and_good_as_long_as_its_process_holds_it() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("carillon");
        let config = Layers::new().set("auth.mode", "none", "test").load().unwrap();
        let (public, internal) = addresses();
        let file = DevFile::write_in(&folder, &config, public, internal, "a \"secret\"").unwrap();
        assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        let found = youngest(&folder).unwrap();
        assert!(found.contains(&("http.listen".into(), "127.0.0.1:8080".into())), "{found:?}");
        assert!(found.contains(&("auth.secret".into(), "a \"secret\"".into())), "{found:?}");
        drop(file);
        assert_eq!(youngest(&folder), None);
    }

    #[test]
    fn what_a_dead_process_left_or_others_may_write_is_not_believed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("dev-9090.toml");
        fs::write(&path, "http.listen = \"127.0.0.1:1\"\n").unwrap();
        let open = File::open(&path).unwrap();
        open.lock().unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(youngest(place.path()), None, "others can read it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(youngest(place.path()).is_some());
        drop(open);
        assert_eq!(youngest(place.path()), None, "its process is dead");
        assert!(!path.exists());
    }
}
