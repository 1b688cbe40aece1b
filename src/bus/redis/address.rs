//! The address behind the name in `redis.url`: where that name leads elsewhere by now, the link is made anew.
//!
//! Who moves a site, or whose service moves a name with a failover, may leave the old Redis at work. Publishers that connect
//! anew are with the other one then, and nobody would see their events over a link that stays.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    net::lookup_host,
    time::{sleep, timeout},
};

use super::{
    commands::CommandClient,
    connection::PATIENCE,
    target::{Access, Topology},
};
use crate::shutdown::Tasks;

/// Looks, one after the other, that must find other addresses only: some names have several, and tell some of them at a time.
const LOOKS: u32 = 3;

/// Where the name of a single Redis leads. Sentinels and clusters tell addresses by themselves.
#[derive(Debug)]
pub(super) struct Address {
    /// `host:port`, where there is a name.
    name: Option<String>,
    /// Where the server of this link was found. A look adds nothing: only a link shows which server is behind an address.
    known: HashSet<IpAddr>,
    looks: u32,
}

impl Address {
    /// Looks the name up, before the connection is made.
    pub(super) async fn look(access: &Access) -> Self {
        let server = &access.hosts[0];
        let is_name = access.kind == Topology::Single && server.host.parse::<IpAddr>().is_err();
        let name = is_name.then(|| format!("{}:{}", server.host, server.port));
        let known = found(name.as_deref().unwrap_or_default()).await;
        Self { name, known, looks: 0 }
    }

    /// All addresses of the server that this link has reached. `before`: those by which earlier links reached the same one.
    pub(super) fn with(&mut self, before: &HashSet<IpAddr>) -> HashSet<IpAddr> {
        self.known.extend(before);
        self.known.clone()
    }

    /// Looks again and again while the link lives, and gives it up where the name leads elsewhere.
    pub(super) fn watch(mut self, commands: &Arc<CommandClient>, tasks: &Tasks, interval: Duration) {
        let Some(name) = self.name.take() else { return };
        let (closed, commands) = (commands.connection().closed().clone(), Arc::downgrade(commands));
        tasks.spawn_until_end(async move {
            let moved = closed.run_until_cancelled(async {
                while !self.has_moved(found(&name).await) {
                    sleep(interval).await;
                }
            });
            if let (Some(()), Some(commands)) = (moved.await, commands.upgrade()) {
                commands.connection().fail(format!("the name {name} leads to another server now"));
            }
        });
    }

    /// Takes what a look has found; whether the name leads elsewhere.
    fn has_moved(&mut self, found: HashSet<IpAddr>) -> bool {
        if found.is_empty() {
            return false;
        }
        if self.known.is_empty() {
            self.known = found;
        } else if self.known.is_disjoint(&found) {
            self.looks += 1;
        } else {
            self.looks = 0;
        }
        self.looks == LOOKS
    }
}

/// The addresses of a name; none where it cannot be looked up, which says nothing.
async fn found(name: &str) -> HashSet<IpAddr> {
    match timeout(PATIENCE, lookup_host(name)).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip()).collect(),
        _ => HashSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(known: &[u8]) -> Address {
        Address { name: None, known: set(known), looks: 0 }
    }

    fn set(hosts: &[u8]) -> HashSet<IpAddr> {
        hosts.iter().map(|n| IpAddr::from([127, 0, 0, *n])).collect()
    }

    /// Whether a name that led to `known` has moved, after each of these looks.
    fn moved(known: &[u8], looks: &[&[u8]]) -> Vec<bool> {
        let mut address = address(known);
        looks.iter().map(|found| address.has_moved(set(found))).collect()
    }

    #[test]
    fn a_name_has_moved_when_it_leads_elsewhere_for_some_looks() {
        assert_eq!(moved(&[1], &[&[1], &[2], &[2], &[2]]), [false, false, false, true]);
        assert_eq!(
            moved(&[1], &[&[2], &[], &[2], &[3]]),
            [false, false, false, true],
            "no answer says nothing"
        );
    }

    #[test]
    fn a_name_that_told_both_addresses_for_a_while_has_moved_all_the_same() {
        assert_eq!(
            moved(&[1], &[&[1, 2], &[2], &[2], &[2]]),
            [false, false, false, true],
            "a careful change"
        );
        assert_eq!(
            moved(&[1], &[&[2], &[1], &[2], &[2], &[2]]),
            [false, false, false, false, true],
            "two resolvers with answers of different age"
        );
    }

    #[test]
    fn a_name_with_several_addresses_has_not_moved() {
        assert_eq!(moved(&[1, 2], &[&[2], &[2], &[2], &[2]]), [false; 4]);
        assert_eq!(moved(&[], &[&[2], &[2], &[2]]), [false; 3], "where it led is not known");
    }

    #[test]
    fn an_address_by_which_an_earlier_link_reached_the_same_server_is_known() {
        let mut address = address(&[2]);
        assert_eq!(address.with(&set(&[1])), set(&[1, 2]));
        assert!(!(0..4).any(|_| address.has_moved(set(&[1]))));
    }
}
