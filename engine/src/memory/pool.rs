//! A pool for each run of a query, so that one cannot starve another.
//!
//! A query that runs alone may take three quarters of what is granted, one of `n` a share of
//! `1 / (n + 1)`: something is always left for the next. A share shrinks when others come; who
//! holds more gets nothing until it has spilled. A few megabytes are granted to each query however
//! much others hold, so that lookups go on. Within a query, operators that spill divide what those
//! that cannot have left.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation, human_readable_size,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// A query gets this much of the whole however much others hold.
const FLOOR_FRACTION: usize = 64;
const MOST_FLOOR: usize = 16 << 20;

/// Who holds what.
#[derive(Debug)]
pub(super) struct Ledger {
    granted: usize,
    /// What outlives queries holds: they share the rest.
    kept: usize,
    accounts: Vec<Arc<Account>>,
}

/// One run of a query.
#[derive(Debug)]
pub(super) struct Account {
    held: Mutex<Held>,
    given_up: CancellationToken,
}

#[derive(Debug, Default)]
struct Held {
    /// Operators that spill when they get no more.
    spillers: usize,
    spillable: usize,
    unspillable: usize,
}

impl Held {
    fn total(&self) -> usize {
        self.spillable + self.unspillable
    }
}

impl Ledger {
    pub(super) fn new(granted: usize) -> Self {
        Self {
            granted,
            kept: 0,
            accounts: Vec::new(),
        }
    }

    /// Runs that are under way.
    pub(super) fn queries(&self) -> usize {
        self.accounts.len()
    }

    pub(super) fn reserved(&self) -> usize {
        let held = self
            .accounts
            .iter()
            .map(|account| account.held.lock().total());
        held.sum()
    }

    /// Gives up the query that holds the most; false when none is left to.
    pub(super) fn give_up_largest(&self) -> bool {
        let running = self
            .accounts
            .iter()
            .filter(|account| !account.given_up.is_cancelled());
        // Of several the newest: the others have done more of their work.
        match running.max_by_key(|account| account.held.lock().total()) {
            Some(account) => {
                account.given_up.cancel();
                true
            }
            None => false,
        }
    }

    fn floor(&self) -> usize {
        (self.granted / FLOOR_FRACTION).min(MOST_FLOOR)
    }

    /// What one query may hold now.
    fn share(&self) -> usize {
        let holders = self
            .accounts
            .iter()
            .filter(|account| account.held.lock().total() > self.floor())
            .count();
        let shared = self.granted.saturating_sub(self.kept);
        if holders <= 1 {
            shared / 4 * 3
        } else {
            shared / (holders + 1)
        }
    }
}

/// The pool of what is in no query: temporary tables, and rows on their way in. A quarter of what is
/// granted stays for queries.
#[derive(Debug)]
pub(super) struct KeptPool {
    ledger: Arc<Mutex<Ledger>>,
    /// Set while the process is short of memory.
    pressure: Arc<AtomicBool>,
}

impl KeptPool {
    pub(super) fn new(ledger: &Arc<Mutex<Ledger>>, pressure: Arc<AtomicBool>) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            pressure,
        }
    }
}

impl MemoryPool for KeptPool {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.ledger.lock().kept += additional;
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        let mut ledger = self.ledger.lock();
        ledger.kept = ledger.kept.saturating_sub(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let mut ledger = self.ledger.lock();
        let kept = ledger.kept.saturating_add(additional);
        let fits = kept <= ledger.granted / 4 * 3
            && kept.saturating_add(ledger.reserved()) <= ledger.granted
            && !self.pressure.load(Ordering::Acquire);
        if !fits {
            let why = "the server has no more memory for temporary tables and rows on their way in";
            return Err(refusal(reservation, additional, why));
        }
        ledger.kept = kept;
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.ledger.lock().kept
    }
}

impl fmt::Display for KeptPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kept({})", human_readable_size(self.reserved()))
    }
}

fn refusal(reservation: &MemoryReservation, additional: usize, why: &str) -> DataFusionError {
    DataFusionError::ResourcesExhausted(format!(
        "{} for {} on top of {}: {why}",
        human_readable_size(additional),
        reservation.consumer().name(),
        human_readable_size(reservation.size()),
    ))
}

/// The pool of one run.
#[derive(Debug)]
pub(super) struct QueryPool {
    ledger: Arc<Mutex<Ledger>>,
    account: Arc<Account>,
    /// Set while the process is short of memory.
    pressure: Arc<AtomicBool>,
}

impl QueryPool {
    pub(super) fn new(ledger: &Arc<Mutex<Ledger>>, pressure: Arc<AtomicBool>) -> Self {
        let account = Arc::new(Account {
            held: Mutex::default(),
            given_up: CancellationToken::new(),
        });
        ledger.lock().accounts.push(Arc::clone(&account));
        Self {
            ledger: Arc::clone(ledger),
            account,
            pressure,
        }
    }

    /// Resolves when the query is to end for the memory it takes.
    pub(super) async fn given_up(&self) {
        self.account.given_up.cancelled().await;
    }
}

impl Drop for QueryPool {
    fn drop(&mut self) {
        let mut ledger = self.ledger.lock();
        ledger
            .accounts
            .retain(|account| !Arc::ptr_eq(account, &self.account));
    }
}

/// Whether it spills by its own choice. A `RepartitionExec` that spills on two sides at once waits
/// for itself (apache/datafusion#24883): it is granted what it asks for, and a query for which that
/// is too much ends with an error instead of never.
fn spills(consumer: &MemoryConsumer) -> bool {
    consumer.can_spill() && !is_repartition(consumer)
}

fn is_repartition(consumer: &MemoryConsumer) -> bool {
    consumer.name().starts_with("RepartitionExec[")
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &'static str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        if spills(consumer) {
            self.account.held.lock().spillers += 1;
        }
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        if spills(consumer) {
            let mut held = self.account.held.lock();
            held.spillers = held.spillers.saturating_sub(1);
        }
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        let mut held = self.account.held.lock();
        if spills(reservation.consumer()) {
            held.spillable += additional;
        } else {
            held.unspillable += additional;
        }
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        let mut held = self.account.held.lock();
        if spills(reservation.consumer()) {
            held.spillable = held.spillable.saturating_sub(shrink);
        } else {
            held.unspillable = held.unspillable.saturating_sub(shrink);
        }
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let ledger = self.ledger.lock();
        let (share, floor, reserved) = (ledger.share(), ledger.floor(), ledger.reserved());
        let mut held = self.account.held.lock();
        let wanted = held.total().saturating_add(additional);
        let all = reserved + ledger.kept;
        let free = all.saturating_add(additional) <= ledger.granted
            && !self.pressure.load(Ordering::Acquire);
        let fits = wanted <= floor || (wanted <= share && free);
        if is_repartition(reservation.consumer()) {
            held.unspillable += additional;
            if !fits {
                self.account.given_up.cancel();
            }
            return Ok(());
        }
        if !fits {
            return Err(refusal(
                reservation,
                additional,
                &format!("the query's share is {}", human_readable_size(share)),
            ));
        }
        if spills(reservation.consumer()) {
            let most = share.saturating_sub(held.unspillable) / held.spillers.max(1);
            if wanted > floor && reservation.size().saturating_add(additional) > most {
                return Err(refusal(
                    reservation,
                    additional,
                    &format!("its share of the query's is {}", human_readable_size(most)),
                ));
            }
            held.spillable += additional;
        } else {
            held.unspillable += additional;
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.account.held.lock().total()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.ledger.lock().share())
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query(held: {})", human_readable_size(self.reserved()))
    }
}
