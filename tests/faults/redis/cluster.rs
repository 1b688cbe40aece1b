//! A cluster: three masters with a replica each.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail, ensure};

use super::{PATIENCE, Redis};
use crate::{
    process::{free_port, until},
    resp::Value,
};

/// Three masters with a replica each.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Redis>,
    /// Where everybody is sent to instead, one port for each server; empty: to the servers themselves.
    announced: Vec<u16>,
}

impl Cluster {
    pub(crate) async fn start(dir: &Path, settings: &[&str]) -> Result<Self> {
        let mut servers = Vec::new();
        for _ in 0..6 {
            let bus = free_port()?.to_string();
            let clustered = [
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "2000",
                "--cluster-port",
                &bus,
                "--cluster-replica-validity-factor",
                "0",
                "--cluster-require-full-coverage",
                "no",
            ];
            servers.push(Redis::start(dir, &[&clustered, settings].concat()).await?);
        }
        let cluster = Self { servers, announced: Vec::new() };
        cluster.make().await?;
        Ok(cluster)
    }

    async fn make(&self) -> Result<()> {
        for (n, server) in self.servers.iter().enumerate() {
            server.must(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await?;
            if n < 3 {
                let (from, to) = (n * 16_384 / 3, (n + 1) * 16_384 / 3 - 1);
                server.must(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).await?;
            }
            if n > 0 {
                let bus = server_bus(&self.servers[0]);
                let first = self.servers[0].port.to_string();
                server.must(&["CLUSTER", "MEET", "127.0.0.1", &first, &bus]).await?;
            }
        }
        self.until_all_see("each other", |nodes| nodes.lines().count() == 6).await?;
        for n in 0..3 {
            let master = self.id(n).await?;
            let replicate = &self.servers[n + 3];
            until("a replica takes its master", PATIENCE, || async {
                replicate.must(&["CLUSTER", "REPLICATE", &master]).await.is_ok()
            })
            .await?;
        }
        self.is_well().await
    }

    /// Waits until all slots are served and every replica follows.
    pub(crate) async fn is_well(&self) -> Result<()> {
        until("the cluster is well", Duration::from_secs(40), || async {
            for server in self.servers.iter().filter(|server| server.is_running()) {
                let state = server.ask(&["CLUSTER", "INFO"]).await.ok();
                let text = state.as_ref().and_then(Value::text).unwrap_or_default();
                if !text.contains("cluster_state:ok") || !text.contains("cluster_slots_ok:16384") {
                    return false;
                }
                if server.is("role", "slave").await && !server.is("master_link_status", "up").await {
                    return false;
                }
            }
            // One that has just gone on may still think that it is a master.
            self.masters().await.len() == 3
        })
        .await
    }

    /// From now on everybody is sent to these ports, one for each server, instead of to its own.
    pub(crate) async fn announce(&mut self, ports: Vec<u16>) -> Result<()> {
        for (server, port) in self.servers.iter_mut().zip(&ports) {
            let port = port.to_string();
            server.must(&["CONFIG", "SET", "cluster-announce-port", &port]).await?;
            // For the next start.
            server.settings.extend(["--cluster-announce-port".to_owned(), port]);
        }
        let announced = |nodes: &str| ports.iter().all(|port| nodes.contains(&format!(":{port}@")));
        self.until_all_see("where to send everybody", announced).await?;
        self.announced = ports;
        self.is_well().await
    }

    /// The ports of the servers, each with the one where everybody is sent to.
    pub(crate) fn ports(&self) -> Vec<(u16, u16)> {
        let ports = self.servers.iter().enumerate();
        ports
            .map(|(n, server)| (server.port, self.announced.get(n).copied().unwrap_or(server.port)))
            .collect()
    }

    /// Waits until CLUSTER NODES of every server is as it should be.
    async fn until_all_see(&self, what: &str, right: impl Fn(&str) -> bool) -> Result<()> {
        until(&format!("all servers see {what}"), PATIENCE, || async {
            for server in &self.servers {
                let nodes = server.ask(&["CLUSTER", "NODES"]).await.ok();
                if !right(nodes.as_ref().and_then(Value::text).unwrap_or_default()) {
                    return false;
                }
            }
            true
        })
        .await
    }

    /// The cluster's name for a server.
    pub(crate) async fn id(&self, server: usize) -> Result<String> {
        let id = self.servers[server].must(&["CLUSTER", "MYID"]).await?;
        Ok(id.text().unwrap_or_default().to_owned())
    }

    /// Indices of the servers that run and are masters.
    pub(crate) async fn masters(&self) -> Vec<usize> {
        let mut masters = Vec::new();
        for (n, server) in self.servers.iter().enumerate() {
            if server.is_running() && server.is("role", "master").await {
                masters.push(n);
            }
        }
        masters
    }

    /// Index of the server that serves a key.
    pub(crate) async fn owner(&self, key: &str) -> Result<usize> {
        for n in self.masters().await {
            if !matches!(self.servers[n].ask(&["EXISTS", key]).await?, Value::Error(_)) {
                return Ok(n);
            }
        }
        bail!("no master serves {key}")
    }

    /// The replica of a master.
    pub(crate) async fn replica_of(&self, master: usize) -> Result<usize> {
        let port = self.ports()[master].1.to_string();
        for (n, server) in self.servers.iter().enumerate() {
            if server.is_running() && server.is("master_port", &port).await {
                return Ok(n);
            }
        }
        bail!("the master on {port} has no replica")
    }

    /// Moves the slot of a key to another master, with its keys, while it is used.
    pub(crate) async fn move_slot(&self, key: &str, from: usize, to: usize) -> Result<()> {
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let slot = source.must(&["CLUSTER", "KEYSLOT", key]).await?.number().unwrap_or_default().to_string();
        let (from_id, to_id) = (self.id(from).await?, self.id(to).await?);
        target.must(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await?;
        source.must(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await?;
        let port = target.port.to_string();
        loop {
            let keys = source.must(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await?;
            if keys.list().is_empty() {
                break;
            }
            // In one go: what belongs together must not be apart for a moment.
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "2000", "REPLACE", "KEYS"];
            migrate.extend(keys.list().iter().filter_map(Value::text));
            source.must(&migrate).await?;
        }
        for server in [target, source] {
            server.must(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
        }
        for (n, server) in self.servers.iter().enumerate() {
            if n != from && n != to && server.is_running() {
                let _ = server.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
            }
        }
        let owner = self.owner(key).await?;
        ensure!(owner == to, "the slot of {key} is with server {owner}, not {to}");
        Ok(())
    }
}

fn server_bus(server: &Redis) -> String {
    let at = server.settings.iter().position(|setting| setting == "--cluster-port");
    at.and_then(|at| server.settings.get(at + 1)).cloned().unwrap_or_default()
}
