//! `carillon health`: whether the node of this configuration works, for container runtimes without curl.

use std::{net::IpAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use carillon::config::Config;
use clap::Args;
use http_body_util::Full;
use hyper::{Request, StatusCode};

use super::{exchange::exchange, print, settings::ConfigFile};

/// Say whether the node on this machine works (exit code 0 or 1); for container health checks
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  carillon health --config /etc/carillon/carillon.toml
  carillon health --ready --url http://127.0.0.1:9090")]
pub(super) struct Health {
    #[command(flatten)]
    file: ConfigFile,
    /// Internal listener to ask, instead of the configured one
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask whether the node is ready for sessions (/readyz), not only whether it works (/healthz)
    #[arg(long)]
    ready: bool,
    /// Print one line of JSON: {"ok":true,"status":200,"detail":"…"}
    #[arg(long)]
    json: bool,
}

impl Health {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let base = match self.url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => own_url(&self.file.load()?),
        };
        let url = format!("{base}/{}", if self.ready { "readyz" } else { "healthz" });
        let request = Request::get(&url)
            .body(Full::<Bytes>::default())
            .with_context(|| format!("{url} is not a URL"))?;
        let answer = exchange(request, Duration::from_secs(5)).await.context("the node does not work");
        if self.json {
            return report(answer);
        }
        let (status, body) = answer?;
        let body = String::from_utf8_lossy(&body);
        if status != StatusCode::OK {
            bail!("the node answered {status}: {}", body.trim());
        }
        print(&format!("{}\n", body.trim()))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The answer, or the lack of one, as JSON.
fn report(answer: anyhow::Result<(StatusCode, Bytes)>) -> anyhow::Result<ExitCode> {
    let (status, detail) = match answer {
        Ok((status, body)) => (Some(status), String::from_utf8_lossy(&body).trim().to_owned()),
        Err(error) => (None, format!("{error:#}")),
    };
    let ok = status == Some(StatusCode::OK);
    let json =
        serde_json::json!({"ok": ok, "status": status.map(|status| status.as_u16()), "detail": detail});
    print(&format!("{json}\n"))?;
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where the node of this configuration can be asked from this machine.
fn own_url(config: &Config) -> String {
    let mut listen = config.internal.listen;
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => listen.set_ip([127, 0, 0, 1].into()),
        IpAddr::V6(ip) if ip.is_unspecified() => listen.set_ip(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    format!("http://{listen}")
}
