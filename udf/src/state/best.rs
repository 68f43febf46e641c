//! Phase one of state: the top-ranked version of every record, in a sharded hash map.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::PhysicalExpr;
use featureflight_catalog::scan::prune::SortedKeys;
use featureflight_catalog::scan::versions::VersionBatch;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant};
use foldhash::fast::RandomState;
use parking_lot::Mutex;

use crate::ranking::cuts::Cuts;
use crate::ranking::fetch::Place;
use crate::ranking::keys::{KeyIndex, Keys, TOGETHER};
use crate::ranking::pass::Visit;
use crate::ranking::rank::{Rank, Ranks};

/// A predicate on the record identifier, as its only column.
#[derive(Debug, Clone)]
pub(crate) struct KeyFilter {
    pub(crate) schema: SchemaRef,
    pub(crate) predicate: Arc<dyn PhysicalExpr>,
    /// The records that can pass, where the predicate names them.
    pub(crate) keys: Option<Arc<SortedKeys>>,
}

impl KeyFilter {
    fn evaluate(&self, batch: &VersionBatch) -> Result<BooleanArray> {
        let options = RecordBatchOptions::new().with_row_count(Some(batch.rows));
        let keys = RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            batch.features.clone(),
            &options,
        )?;
        let passed = self.predicate.evaluate(&keys)?.into_array(batch.rows)?;
        Ok(passed.as_boolean().clone())
    }
}

/// The event time of a record's best version, in microseconds: beside its key, so that the rank is
/// not looked at for versions that are older.
#[derive(Debug)]
struct Newest(AtomicI64);

impl Default for Newest {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

/// Records by number, and the best version of each so far.
#[derive(Debug)]
struct Shard {
    records: KeyIndex<Newest>,
    best: Vec<Rank>,
    reserved: usize,
}

/// What one task keeps between its batches.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    hashes: Vec<u64>,
    shards: Vec<ShardRows>,
    /// The number that the record of each row may have, and its newest event time.
    found: Vec<Option<(u32, i64)>>,
}

/// The rows of one shard and their hashes.
#[derive(Debug, Default)]
struct ShardRows {
    rows: Vec<usize>,
    hashes: Vec<u64>,
}

/// See the module. Its memory is in the pool until it is dropped.
#[derive(Debug)]
pub(crate) struct Best {
    table: Arc<FeatureTable>,
    cuts: Cuts,
    filter: Option<KeyFilter>,
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
    reservation: MemoryReservation,
}

impl Best {
    /// `tasks` is how many tasks will visit at once.
    pub(crate) fn try_new(
        table: &Arc<FeatureTable>,
        cuts: Cuts,
        filter: Option<KeyFilter>,
        tasks: usize,
        reservation: MemoryReservation,
    ) -> Result<Self> {
        let hasher = RandomState::default();
        let key_type = table
            .state_schema
            .field(table.record_identifier)
            .data_type()
            .clone();
        // More shards than tasks, so that they seldom wait for each other.
        let shards = if tasks == 1 {
            1
        } else {
            (tasks * 4).next_power_of_two()
        };
        let shards = (0..shards)
            .map(|_| {
                let records = KeyIndex::try_new(&key_type, hasher.clone())?;
                Ok(Mutex::new(Shard {
                    records,
                    best: Vec::new(),
                    reserved: 0,
                }))
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            table: Arc::clone(table),
            cuts,
            filter,
            hasher,
            shards,
            reservation,
        })
    }

    fn shard(&self, hash: u64) -> usize {
        // The index of a shard takes the lowest bits for places, and these and the higher for tags.
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    /// The places of the winners that are not tombstones, sorted, and the memory they keep
    /// reserved; the rest is given back.
    pub(crate) fn winners(&self) -> Result<(Vec<Place>, MemoryReservation)> {
        let reservation = self.reservation.new_empty();
        let mut winners = Vec::new();
        for shard in &self.shards {
            let shard = std::mem::take(&mut shard.lock().best);
            reservation.try_grow(shard.len() * size_of::<Place>())?;
            winners.extend(shard.iter().filter(|best| !best.tombstone).map(Place::from));
        }
        winners.sort_unstable();
        Ok((winners, reservation))
    }
}

impl Visit for Best {
    type Scratch = Scratch;

    /// The predicate names the records, and each has a newer version.
    fn is_settled(&self, bound: Instant) -> bool {
        let keys = self.filter.as_ref().and_then(|filter| filter.keys.as_ref());
        let Some(most) = keys.map(|keys| keys.len()) else {
            return false;
        };
        let mut records = 0;
        for shard in &self.shards {
            let shard = shard.lock();
            if shard.best.iter().any(|best| best.event_time() < bound) {
                return false;
            }
            records += shard.best.len();
        }
        records >= most
    }

    fn visit(&self, file: u32, batch: &VersionBatch, scratch: &mut Scratch) -> Result<()> {
        let column = batch.features.first();
        let column = column.ok_or_else(|| Error::internal("a batch of versions lacks its keys"))?;
        let keys = Keys::try_new(column)?;
        let ranks = Ranks::try_new(file, batch)?;
        let passed = self
            .filter
            .as_ref()
            .map(|filter| filter.evaluate(batch))
            .transpose()?;
        if keys.null_count() > 0 {
            let name = self.table.name();
            let message = format!("a version of {name} has no record identifier");
            return Err(Error::data_loss(message).into());
        }
        let Scratch {
            hashes,
            shards,
            found,
        } = scratch;
        shards.resize_with(self.shards.len(), ShardRows::default);
        keys.hash(&self.hasher, 0..batch.rows, hashes);
        for (row, hash) in hashes.iter().enumerate() {
            if passed
                .as_ref()
                .is_none_or(|passed| passed.is_valid(row) && passed.value(row))
            {
                let shard = &mut shards[self.shard(*hash)];
                shard.rows.push(row);
                shard.hashes.push(*hash);
            }
        }
        for (new, shard) in shards.iter_mut().zip(&self.shards) {
            if new.rows.is_empty() {
                continue;
            }
            let mut shard = shard.lock();
            for (rows, hashes) in new.rows.chunks(TOGETHER).zip(new.hashes.chunks(TOGETHER)) {
                shard.offer(rows, hashes, &keys, &ranks, &self.cuts, found)?;
            }
            shard.reserve(&self.reservation)?;
            new.rows.clear();
            new.hashes.clear();
        }
        Ok(())
    }
}

impl Shard {
    /// Offers versions, of which `hashes` are those of their keys. Each step runs over all rows
    /// before the next, so that what they wait for overlaps.
    fn offer(
        &mut self,
        rows: &[usize],
        hashes: &[u64],
        keys: &Keys<'_>,
        ranks: &Ranks<'_>,
        cuts: &Cuts,
        found: &mut Vec<Option<(u32, i64)>>,
    ) -> Result<()> {
        self.records.warm(hashes);
        found.clear();
        let records = &self.records;
        found.extend(rows.iter().zip(hashes).map(|(row, hash)| {
            let found = records.candidate(*hash, keys, *row)?;
            Some((found.number, records.payload(found).0.load(Relaxed)))
        }));
        records.warm_keys(found.iter().flatten().map(|(number, _)| *number));
        for ((row, hash), found) in rows.iter().zip(hashes).zip(found) {
            let known = found.filter(|(number, _)| self.records.is(*number, keys, *row));
            if known.is_some_and(|(_, newest)| newest > ranks.event_micros(*row)) {
                continue;
            }
            let rank = ranks.get(*row);
            if !cuts.admit(&rank) {
                continue;
            }
            let number = match known {
                Some((number, _)) => number,
                None => self.records.insert(*hash, keys, *row)?,
            };
            match self.best.get_mut(number as usize) {
                Some(best) if *best < rank => *best = rank,
                Some(_) => continue,
                None => self.best.push(rank),
            }
            if let Some(record) = self.records.candidate(*hash, keys, *row) {
                let newest = &self.records.payload(record).0;
                newest.store(rank.event_time().micros, Relaxed);
            }
        }
        Ok(())
    }

    /// Reserves what has been allocated since the last time.
    fn reserve(&mut self, reservation: &MemoryReservation) -> Result<()> {
        let held = self.records.memory() + self.best.capacity() * size_of::<Rank>();
        if held > self.reserved {
            reservation.try_grow(held - self.reserved)?;
            self.reserved = held;
        }
        Ok(())
    }
}
