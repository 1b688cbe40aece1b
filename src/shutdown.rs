//! Who owns the tasks: every task of the node is spawned here, and a shutdown waits for all of them.

use std::{future::Future, time::Duration};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The owner of tasks. Cheap to clone; all clones share one set of tasks and one end.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    ending: CancellationToken,
}

impl Tasks {
    /// An owner without tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a task. It must end soon after [`Tasks::ending`] says so.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Starts a task that is dropped where it stands when the end comes.
    pub fn spawn_until_end<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ending = self.ending.clone();
        self.tracker.spawn(async move {
            ending.run_until_cancelled(task).await;
        });
    }

    /// Starts something that blocks, on a thread for such things.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// The token that is cancelled when the tasks must end.
    pub fn ending(&self) -> &CancellationToken {
        &self.ending
    }

    /// How many tasks are running.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether no task is running.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }

    /// Tells all tasks to end and waits for them, at most `patience`. Returns how many were still running then.
    pub async fn end(&self, patience: Duration) -> usize {
        self.ending.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout(patience, self.tracker.wait()).await;
        self.tracker.len()
    }
}
