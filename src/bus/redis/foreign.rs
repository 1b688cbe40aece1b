//! What others have put under our names: keys of another type, and functions. Said at the start of a node and by
//! `carillon doctor`, with what to do. (A log of another type is no obstacle: the functions begin it anew.)

use fred::prelude::Error;
use futures_util::future::join_all;

use super::{
    connection::{Connection, PATIENCE},
    fault::{describe, is_trouble},
};
use crate::bus::{Settings, keys::Keys};

/// A sentence about keys of nodes that are not the hashes that they should be. Only trouble with a connection is an error.
pub(super) async fn keys(
    commands: &Connection,
    settings: &Settings,
    place: &str,
) -> Result<Option<String>, Error> {
    let names = Keys::new(&settings.prefix);
    let asked = [names.nodes(), names.marks(), names.revocations(), names.sources()].map(|key| async move {
        let answer = commands.command("HLEN", &key, vec![key.as_str().into()], PATIENCE).await;
        (key, answer)
    });
    let mut wrong = Vec::new();
    for (key, answer) in join_all(asked).await {
        match answer {
            Err(error) if describe(&error).starts_with("WRONGTYPE") => wrong.push(key),
            // What else is refused is told with the rights.
            Err(error) if is_trouble(&error) => return Err(error),
            _ => {}
        }
    }
    Ok((!wrong.is_empty()).then(|| {
        let keys = wrong.join(" ");
        format!(
            "Redis at {place} has keys under Carillon's names that another program wrote ({keys}): choose another redis.prefix, \
             or remove them with DEL"
        )
    }))
}

/// A sentence about functions that have our names; `said`: Redis' words.
pub(super) fn functions(settings: &Settings, place: &str, said: &str) -> String {
    format!(
        "Redis at {place} has functions under the name {:?} that are not Carillon's ({said}): choose another redis.prefix, or \
         remove their library with FUNCTION DELETE (FUNCTION LIST names it)",
        settings.prefix
    )
}
