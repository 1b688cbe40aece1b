//! The Redis of a world, whichever of the three it is: its servers, its masters, the way to it.

use anyhow::Result;

use crate::{
    door::Place,
    redis::{Cluster, MASTER, Redis, Watched},
};

/// Which Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Alone,
    /// So many servers under three sentinels.
    Sentinel(usize),
    Cluster,
}

/// The Redis of a world.
#[derive(Debug)]
pub(crate) enum Store {
    Alone(Redis),
    Watched(Watched),
    Cluster(Cluster),
}

impl Store {
    pub(crate) fn servers(&self) -> &[Redis] {
        match self {
            Self::Alone(redis) => std::slice::from_ref(redis),
            Self::Watched(watched) => &watched.servers,
            Self::Cluster(cluster) => &cluster.servers,
        }
    }

    pub(crate) fn server(&mut self, n: usize) -> &mut Redis {
        match self {
            Self::Alone(redis) => redis,
            Self::Watched(watched) => &mut watched.servers[n],
            Self::Cluster(cluster) => &mut cluster.servers[n],
        }
    }

    /// Whether channels belong to shards.
    pub(crate) fn is_sharded(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Indices of the servers that take writes.
    pub(crate) async fn masters(&self) -> Result<Vec<usize>> {
        match self {
            Self::Alone(_) => Ok(vec![0]),
            Self::Watched(watched) => Ok(vec![watched.master().await?]),
            Self::Cluster(cluster) => Ok(cluster.masters().await),
        }
    }

    /// Waits until every replica follows its master.
    pub(crate) async fn is_well(&self) -> Result<()> {
        match self {
            Self::Alone(_) => Ok(()),
            Self::Watched(watched) => watched.replicas_follow().await,
            Self::Cluster(cluster) => cluster.is_well().await,
        }
    }

    /// Where publishers find it.
    pub(crate) fn place(&self) -> Place {
        match self {
            Self::Alone(redis) => Place::Alone(redis.port),
            Self::Watched(watched) => Place::Sentinels(watched.ports()),
            Self::Cluster(cluster) => Place::Cluster(cluster.ports()),
        }
    }

    /// Where nodes find it.
    pub(crate) fn url(&self) -> String {
        let list = |ports: &[u16]| {
            ports.iter().map(|port| format!("127.0.0.1:{port}")).collect::<Vec<_>>().join(",")
        };
        match self.place() {
            Place::Alone(port) => format!("redis://127.0.0.1:{port}"),
            Place::Sentinels(ports) => format!("redis-sentinel://{}/{}", list(&ports), MASTER),
            Place::Cluster(ports) => {
                let ports: Vec<u16> = ports.into_iter().map(|(_, announced)| announced).collect();
                format!("redis-cluster://{}", list(&ports))
            }
        }
    }
}
