//! From the outbox to the online stores: every accepted row is sent until its store has it or
//! refuses it for good.
//!
//! One [lane] per feature group keeps the order per record: of each record identifier at most one
//! row is under way, the next one follows when that is settled. Rows of other identifiers pass by,
//! so neither a slow nor a poisoned record holds up the rest. What all lanes of a store share is
//! its [pace]: how many calls at once it takes, and when to leave it alone.
//!
//! Nothing is given up: throttling and failures are tried again without end, with growing waits;
//! refused credentials pause the store until it lets us in. A crash sends again what was not marked
//! durably, in the same order, which ends in the same state.

mod backoff;
mod lane;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use featureflight_catalog::{Instant, Result};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::outbox::{Outbox, Stage};
use crate::store::OnlineStore;
use lane::Lane;
use pace::Pace;

/// Says which online store a group's records go to.
#[async_trait]
pub trait Router: Send + Sync + fmt::Debug {
    /// # Errors
    /// Why that cannot be said now. The group's rows wait, and it is asked again.
    async fn store(&self, group: &str) -> Result<Arc<dyn OnlineStore>>;
}

/// How hard the forwarder tries.
#[derive(Debug, Clone)]
pub struct ForwardOptions {
    /// Rows of one group in memory.
    pub window: usize,
    /// The first wait after a failure; it doubles with every further one.
    pub backoff: Duration,
    pub max_backoff: Duration,
    /// How long a store is left alone after it refused our credentials.
    pub denied_wait: Duration,
    /// A record that failed this often by itself, while the store took at least as many others, is
    /// poison and goes into quarantine.
    pub poison_attempts: u32,
    /// Where lanes say how they are.
    pub lanes: Lanes,
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            window: 8_192,
            backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
            denied_wait: Duration::from_secs(10),
            poison_attempts: 20,
            lanes: Lanes::default(),
        }
    }
}

/// What happens to one group's rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaneStatus {
    /// The online store's name, once it is known.
    pub store: String,
    /// Rows that reached the store since the server's start.
    pub sent: u64,
    /// Rows that had to be sent again, and those of them that the store put off because it had too
    /// many.
    pub retried: u64,
    pub throttled: u64,
    pub quarantined: u64,
    /// Rows that were seen in the offline store since the server's start, when the last of them
    /// were, and how long after their acceptance, in seconds.
    pub landed: u64,
    pub last_landed: Option<Instant>,
    pub landing_seconds: Option<f64>,
    /// Rows that SageMaker took and that were not seen in the offline store in time.
    pub overdue: u64,
    /// What keeps rows from being sent at this moment.
    pub trouble: Option<String>,
}

/// What happens to the rows of each group that had something to forward since the start.
pub type Lanes = Arc<Mutex<BTreeMap<String, LaneStatus>>>;

/// Forwards until it is stopped or dropped.
#[derive(Debug)]
pub struct Forwarder {
    supervisor: JoinHandle<()>,
    stop: watch::Sender<bool>,
    statuses: Lanes,
}

impl Forwarder {
    /// Starts on the current tokio runtime.
    pub fn start(outbox: Arc<Outbox>, router: Arc<dyn Router>, options: ForwardOptions) -> Self {
        let (stop, stopped) = watch::channel(false);
        let statuses = Arc::clone(&options.lanes);
        let supervisor = Supervisor {
            outbox,
            router,
            options,
            stopped,
            statuses: Arc::clone(&statuses),
            paces: HashMap::new(),
            running: HashMap::new(),
            lanes: JoinSet::new(),
        };
        Self {
            supervisor: tokio::spawn(supervisor.run()),
            stop,
            statuses,
        }
    }

    /// By group, of every group that had something to forward since the start.
    pub fn status(&self) -> BTreeMap<String, LaneStatus> {
        self.statuses.lock().clone()
    }

    /// Sends nothing more, and waits for the answers to what was sent.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        (&mut self.supervisor).await.ok();
    }
}

/// What is under way is sent again after the next start.
impl Drop for Forwarder {
    fn drop(&mut self) {
        self.supervisor.abort();
    }
}

/// Keeps a lane for every group with something to forward.
struct Supervisor {
    outbox: Arc<Outbox>,
    router: Arc<dyn Router>,
    options: ForwardOptions,
    stopped: watch::Receiver<bool>,
    statuses: Lanes,
    /// By store.
    paces: HashMap<String, Arc<Pace>>,
    /// The groups of the lanes.
    running: HashMap<tokio::task::Id, String>,
    lanes: JoinSet<lane::End>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut changes = self.outbox.changes();
        let mut retry: BTreeMap<String, tokio::time::Instant> = BTreeMap::new();
        loop {
            if *self.stopped.borrow() {
                break;
            }
            changes.mark_unchanged();
            let now = tokio::time::Instant::now();
            retry.retain(|_, at| *at > now);
            for group in self.outbox.pending_groups(Stage::Online) {
                let runs = self.running.values().any(|running| *running == group);
                if !runs
                    && !retry.contains_key(&group)
                    && let Err(error) = self.begin(&group).await
                {
                    self.statuses
                        .lock()
                        .entry(group.clone())
                        .or_default()
                        .trouble = Some(error.message);
                    retry.insert(group, now + self.options.denied_wait);
                }
            }
            let next = retry.values().min().copied();
            tokio::select! {
                _ = changes.changed() => {}
                _ = self.stopped.changed() => {}
                () = until(next) => {}
                Some(ended) = self.lanes.join_next_with_id() => {
                    let (id, end) = match ended {
                        Ok((id, end)) => (id, end),
                        Err(error) => {
                            tracing::error!(%error, "forwarding a group broke off");
                            (error.id(), lane::End::Broken)
                        }
                    };
                    if let Some(group) = self.running.remove(&id) && end == lane::End::Broken {
                        retry.insert(group, tokio::time::Instant::now() + self.options.denied_wait);
                    }
                }
            }
        }
        while self.lanes.join_next().await.is_some() {}
    }

    async fn begin(&mut self, group: &str) -> Result<()> {
        let store = self.router.store(group).await?;
        let pace = self
            .paces
            .entry(store.name().to_owned())
            .or_insert_with(|| Arc::new(Pace::new(store.limit().calls, &self.options)));
        let lane = Lane::new(
            group,
            Arc::clone(&self.outbox),
            store,
            Arc::clone(pace),
            self.options.clone(),
            Arc::clone(&self.statuses),
        );
        let task = self.lanes.spawn(lane.run(self.stopped.clone()));
        self.running.insert(task.id(), group.to_owned());
        Ok(())
    }
}

/// For ever without a time.
async fn until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
