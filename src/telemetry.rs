//! What the program says about itself as it runs: its traces in [`traces`], and here its log, text for people or JSON for
//! collectors, on standard error, at the configured level.
//!
//! The level is for Carillon itself; libraries are heard from `warn` on, one step less than ours when somebody looks
//! closely. A panic becomes a line like any other, so that collectors get it too.

#[cfg(feature = "otlp")]
mod otlp;
mod stage;
#[cfg(not(feature = "otlp"))]
mod untraced;

/// Traces, where this build has them (feature `otlp`).
pub mod traces {
    #[cfg(feature = "otlp")]
    pub use super::otlp::{Span, Traces};
    pub use super::stage::Stage;
    #[cfg(not(feature = "otlp"))]
    pub use super::untraced::{Span, Traces};
}

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::{
    field::MakeExt as _,
    filter::{LevelFilter, Targets},
    fmt::{self, format},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, LogLevel, Telemetry, is_coloured},
    printable,
};

/// Starts logging, once for the process; a second call changes nothing.
pub fn start(telemetry: &Telemetry) {
    let registry = tracing_subscriber::registry().with(heard(telemetry.level));
    let lines = fmt::layer().with_target(false);
    let started = match telemetry.format {
        LogFormat::Text => {
            // What strangers say stands in the fields: names, headers, answers.
            let fields = format::debug_fn(|writer, field, value| {
                let value = format!("{value:?}");
                let value = printable::line(&value);
                if field.name() == "message" {
                    write!(writer, "{value}")
                } else {
                    write!(writer, "{field}={value}")
                }
            });
            let lines = lines.with_writer(io::stderr).fmt_fields(fields.delimited(" "));
            registry.with(lines.with_ansi(is_coloured(io::stderr().is_terminal()))).try_init()
        }
        LogFormat::Json => {
            let lines = lines.with_writer(|| Printable(io::stderr()));
            registry.with(lines.json().flatten_event(true).with_current_span(false)).try_init()
        }
    };
    if started.is_ok() {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let text = panic.payload().downcast_ref::<String>().map(String::as_str);
            let what = text.or_else(|| panic.payload().downcast_ref::<&str>().copied()).unwrap_or("unknown");
            tracing::error!(place, what, "a task panicked: this is a fault in Carillon, please report it");
        }));
    }
}

/// Standard error for lines of JSON: JSON itself leaves DEL, C1 and bidi controls as they are.
struct Printable(io::Stderr);

impl Write for Printable {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line comes in one piece.
        self.0.write_all(printable::lines(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What is written: ours from `level` on, and what libraries say.
fn heard(level: LogLevel) -> Targets {
    let (ours, libraries) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::DEBUG),
    };
    Targets::new().with_default(libraries).with_target("carillon", ours)
}
