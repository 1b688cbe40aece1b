//! Real clusters for tests: masters and replicas that know each other, and slots that move.

use std::process::Command;

use super::redis::{RedisServer, free_port, until};

/// A cluster of masters, each with `replicas` replicas.
#[derive(Debug)]
pub(crate) struct RedisCluster {
    /// Masters first.
    pub(crate) servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// One server that has all slots and was never told its own name, with these lines in its configuration.
    pub(crate) fn of_one(lines: &str) -> Self {
        let bus = free_port();
        let lines = format!(
            "save \"\"\ncluster-enabled yes\ncluster-config-file {{dir}}/nodes.conf\ncluster-port {bus}\n{lines}"
        );
        let server = RedisServer::with(&lines);
        assert_eq!(server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).trim(), "OK");
        until("the cluster is whole", || server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        Self { servers: vec![server] }
    }

    /// Adds a master without slots; its place among the servers.
    pub(crate) fn add(&mut self) -> usize {
        let bus = free_port();
        let lines = format!(
            "save \"\"\ncluster-enabled yes\ncluster-config-file {{dir}}/nodes.conf\ncluster-node-timeout 2000\n\
             cluster-port {bus}\n"
        );
        let server = RedisServer::with(&lines);
        let port = server.port().to_string();
        let met = self.servers[0].command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus.to_string()]);
        assert_eq!(met.trim(), "OK");
        self.servers.push(server);
        let count = self.servers.len();
        let meets = |s: &RedisServer| {
            let info = s.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
        };
        until("the new server is known to all", || self.servers.iter().all(meets));
        count - 1
    }

    /// Starts servers and joins them; returns when every one knows all slots.
    pub(crate) fn start(masters: usize, replicas: usize) -> Self {
        let lines = "save \"\"\ncluster-enabled yes\ncluster-config-file {dir}/nodes.conf\ncluster-node-timeout 2000\n\
                     cluster-port {bus}\n";
        let count = masters * (1 + replicas);
        let servers: Vec<_> = (0..count)
            .map(|_| RedisServer::with(&lines.replace("{bus}", &free_port().to_string())))
            .collect();
        let addresses = servers.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect::<Vec<_>>();
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(&addresses)
            .args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"])
            .output()
            .expect("redis-cli");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { servers };
        let settled = |s: &RedisServer| {
            let info = s.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
        };
        until("the cluster forms", || cluster.servers.iter().all(settled));
        for replica in &cluster.servers[masters..] {
            until("the replica is in step", || replica.info("replication", "master_link_status") == "up");
        }
        for (n, master) in cluster.servers[..masters].iter().enumerate().filter(|_| replicas > 0) {
            until("the master knows its replica", || {
                let lines = master.command(&["CLUSTER", "NODES"]);
                lines.matches("slave").count() == masters * replicas && cluster.replica_of(n) > 0
            });
        }
        cluster
    }

    /// `redis-cluster://…`
    pub(crate) fn url(&self) -> String {
        let hosts = self.servers.iter().map(|s| format!("127.0.0.1:{}", s.port())).collect::<Vec<_>>();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// The port of the replica of a master.
    pub(crate) fn replica_of(&self, master: usize) -> u16 {
        let id = self.servers[master].command(&["CLUSTER", "MYID"]);
        let nodes = self.servers[master].command(&["CLUSTER", "NODES"]);
        let line =
            nodes.lines().find(|line| line.contains("slave") && line.contains(id.trim())).expect("a replica");
        let address = line.split([' ', '@']).nth(1).expect("an address");
        address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Which server has a slot.
    pub(crate) fn owner(&self, slot: u64) -> usize {
        let owns = |server: &RedisServer| {
            let nodes = server.command(&["CLUSTER", "NODES"]);
            let mine = nodes.lines().find(|line| line.contains("myself")).unwrap_or_default();
            mine.split(' ').skip(8).any(|range| {
                let mut ends = range.split('-').filter_map(|n| n.parse::<u64>().ok());
                let first = ends.next();
                first.is_some_and(|first| (first..=ends.next().unwrap_or(first)).contains(&slot))
            })
        };
        self.servers.iter().position(owns).expect("an owner")
    }

    /// Moves a slot with its keys from one master to another.
    pub(crate) fn move_slot(&self, slot: u64, from: usize, to: usize) {
        self.move_keys(slot, from, to);
        let (slot, id) = (slot.to_string(), self.servers[to].command(&["CLUSTER", "MYID"]));
        for server in [&self.servers[to], &self.servers[from]].into_iter().chain(&self.servers) {
            server.command(&["CLUSTER", "SETSLOT", &slot, "NODE", id.trim()]);
        }
    }

    /// Moves the keys of a slot, and leaves it half moved: it belongs to the one, and its keys lie with the other.
    pub(crate) fn move_keys(&self, slot: u64, from: usize, to: usize) {
        self.open_slot(slot, from, to);
        let (source, slot) = (&self.servers[from], slot.to_string());
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            let keys = keys.lines().collect::<Vec<_>>();
            if keys.is_empty() {
                break;
            }
            self.migrate(&keys, from, to);
        }
    }

    /// Begins to move a slot.
    pub(crate) fn open_slot(&self, slot: u64, from: usize, to: usize) {
        let (source, target, slot) = (&self.servers[from], &self.servers[to], slot.to_string());
        let ids = [source.command(&["CLUSTER", "MYID"]), target.command(&["CLUSTER", "MYID"])];
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", ids[0].trim()]);
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", ids[1].trim()]);
    }

    /// Moves keys of a slot that is being moved.
    pub(crate) fn migrate(&self, keys: &[&str], from: usize, to: usize) {
        let port = self.servers[to].port().to_string();
        let migrate = [&["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"], keys].concat();
        assert_eq!(self.servers[from].command(&migrate).trim(), "OK", "{keys:?}");
    }

    /// Moves so many slots the way operators do.
    pub(crate) fn reshard(&self, slots: u64, from: usize, to: usize) {
        let [from, to] = [from, to].map(|n| self.servers[n].command(&["CLUSTER", "MYID"]).trim().to_owned());
        let output = Command::new("redis-cli")
            .args(["--cluster", "reshard", &format!("127.0.0.1:{}", self.servers[0].port())])
            .args(["--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", &slots.to_string()])
            .arg("--cluster-yes")
            .output()
            .expect("redis-cli");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("[ERR]"), "{said}");
    }
}
