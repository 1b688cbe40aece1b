//! The publish function as the oracle: the library that nodes load into Redis, run by the same Lua with a Redis that
//! keeps nothing. What it accepts is in the log of every topic, so the node must give the same verdict.

use std::time::Duration;

use carillon::bus::{Settings, redis::library};
use mlua::{Function, Lua, Value};

use crate::{EVENT_BYTES, areas};

/// The id that everything published gets.
pub const ID: &str = "1700000000000-1";

/// A Redis in which every log is empty.
const REDIS: &str = r"
local functions, seen = {}, {}
redis = {
  error_reply = function(text) return { err = text } end,
  register_function = function(f) functions[f.function_name] = f.callback end,
  call = function(command, ...)
    if command == 'TIME' then return { '1700000000', '0' } end
    if command == 'EXISTS' then return 0 end
    if command == 'HGET' then return false end
    if command == 'XADD' then return '1700000000000-1' end
    if command == 'HSET' then seen.name = select(2, ...) end
    if command == 'PUBLISH' then seen.message = select(2, ...) end
  end,
}
function publish(channel, event)
  seen = {}
  local answer = functions.carillon_publish({ channel }, { event })
  if type(answer) == 'table' then return answer.err end
  return nil, seen.message, seen.name
end
";

/// What the function has published.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// The message on the topic's channel.
    pub message: Vec<u8>,
    /// The length of `source`, a colon, `source` and `id`, where there is an `id`: what duplicates are known by.
    pub name: Option<Vec<u8>>,
}

struct Loaded {
    lua: Lua,
    publish: Function,
}

fn load() -> mlua::Result<Loaded> {
    let settings = Settings {
        prefix: "carillon".into(),
        node: String::new(),
        areas: areas(),
        log_length: 10,
        log_ttl: Duration::from_secs(1),
        event_bytes: EVENT_BYTES,
        probe_interval: Duration::from_secs(1),
        redis: None,
    };
    let lua = Lua::new();
    lua.load(REDIS).exec()?;
    let library = library(&settings);
    // The line that tells Redis the language is not Lua.
    let (_, code) = library.split_once('\n').unwrap_or_default();
    lua.load(code).exec()?;
    let publish = lua.globals().get("publish")?;
    Ok(Loaded { lua, publish })
}

/// Publishes to a channel. The error is the function's sentence.
///
/// # Panics
/// Where the function itself fails, which is a finding.
pub fn publish(channel: &[u8], event: &[u8]) -> Result<Sent, String> {
    thread_local!(static LOADED: Loaded = load().expect("the library"));
    LOADED.with(|Loaded { lua, publish }| {
        let args =
            (lua.create_string(channel).expect("a string"), lua.create_string(event).expect("a string"));
        let (error, message, name): (Value, Value, Value) = publish.call(args).expect("the function fails");
        let bytes = |value: Value| value.as_string().map(|text| text.as_bytes().to_vec());
        match bytes(error) {
            Some(text) => Err(String::from_utf8_lossy(&text).into_owned()),
            None => Ok(Sent { message: bytes(message).expect("a message"), name: bytes(name) }),
        }
    })
}

/// The kind of a refusal, read from the function's sentence.
pub fn kind(text: &str) -> &'static str {
    let marks = [
        ("bytes, at most", "size"),
        ("not valid UTF-8", "utf8"),
        ("not a JSON object", "json"),
        ("needs a \"type\"", "type"),
        ("\"id\" must be", "id"),
        ("\"source\" must be", "source"),
    ];
    marks.iter().find(|(mark, _)| text.contains(mark)).map_or("unclear", |(_, kind)| kind)
}
