//! One feature group of a point-in-time join, from the collected spine to its features.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::datatypes::IntervalMonthDayNano;
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder};
use featureflight_catalog::listing::{EventRange, FileList};
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::scan::prune::Prune;
use featureflight_catalog::scan::versions::FileReader;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant};

use crate::clock::Clocks;
use crate::point_in_time::age::{Age, before};
use crate::point_in_time::features::{Source, Versions, distinct};
use crate::point_in_time::index::{SpineIndex, SpineRows};
use crate::point_in_time::kept::Keeper;
use crate::point_in_time::node::KnownBy;
use crate::point_in_time::passes::Passes;
use crate::point_in_time::probe::{Probe, cells_memory};
use crate::point_in_time::spill::versions::SpilledVersions;
use crate::point_in_time::spine::{Spine, instants};
use crate::ranking::cuts::Cuts;
use crate::ranking::fetch::{Place, taken};
use crate::ranking::keys::NONE;
use crate::ranking::pass::{History, PassMetrics, pass};
use crate::ranking::rank;

/// The cut on what was known, over the columns of the spine.
#[derive(Debug, Clone)]
pub(crate) enum KnownAt {
    Always,
    Constant(Instant),
    Spine(Arc<dyn PhysicalExpr>),
}

/// See the module. The logical counterpart is
/// [`GroupJoin`](crate::point_in_time::node::GroupJoin).
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) table: Arc<FeatureTable>,
    pub(crate) reader: Arc<FileReader>,
    /// All that were pinned.
    pub(crate) files: Arc<FileList>,
    pub(crate) clocks: Clocks,
    /// Of the record identifier's type.
    pub(crate) key: Arc<dyn PhysicalExpr>,
    pub(crate) time: Arc<dyn PhysicalExpr>,
    pub(crate) max_age: Option<IntervalMonthDayNano>,
    pub(crate) known_at: KnownAt,
    pub(crate) known_by: KnownBy,
    /// Positions in the group's definitions.
    pub(crate) features: Vec<usize>,
    pub(crate) passes: Passes,
}

/// Which version each spine row matched, and the features of those versions.
#[derive(Debug)]
pub(crate) struct Matches {
    /// Per spine row a row of `features`, or [`NONE`].
    winners: Vec<u32>,
    features: Vec<ArrayRef>,
}

impl Matches {
    /// The features of `length` spine rows from `start` on.
    pub(crate) fn take(&self, start: usize, length: usize) -> Result<Vec<ArrayRef>> {
        let winners = &self.winners[start..start + length];
        let winners: UInt32Array = winners
            .iter()
            .map(|winner| (*winner != NONE).then_some(*winner))
            .collect();
        Ok(taken(&self.features, &winners)?)
    }
}

/// The spine as one or several groups see it; in the pool until it is dropped.
#[derive(Debug)]
pub(crate) struct IndexedSpine {
    index: Arc<SpineIndex>,
    /// Per spine row its slot, or [`NONE`].
    slot_of_row: Vec<u32>,
    _memory: MemoryReservation,
}

/// Counts of one group.
#[derive(Debug)]
pub(crate) struct GroupMetrics {
    pub(crate) pass: PassMetrics,
    versions_entered: Count,
    rows_matched: Count,
    files_fetched: Count,
}

impl GroupMetrics {
    pub(crate) fn new(set: &ExecutionPlanMetricsSet, group: &str) -> Self {
        let counter = |name| {
            MetricBuilder::new(set)
                .with_new_label("group", group.to_owned())
                .global_counter(name)
        };
        Self {
            pass: PassMetrics {
                files: ScanMetrics::from_counters(counter),
                files_settled: counter("files_settled"),
                versions_probed: counter("versions_probed"),
            },
            versions_entered: counter("versions_entered"),
            rows_matched: counter("rows_matched"),
            files_fetched: counter("files_fetched"),
        }
    }
}

impl Group {
    /// Matches every row of the spine; `memory` grows by what the matches hold. `indexed` is what
    /// [`Self::index`] made; `spilled` are the versions, where they are not to be read again.
    pub(crate) async fn matches(
        &self,
        indexed: &IndexedSpine,
        spilled: Option<SpilledVersions>,
        tasks: usize,
        memory: &Arc<MemoryReservation>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Matches> {
        let metrics = GroupMetrics::new(metrics, self.table.name());
        let (index, slot_of_row) = (Arc::clone(&indexed.index), &indexed.slot_of_row);
        // Freed at the end of phase one: the cells, and what they become when they are settled.
        let scratch = memory.new_empty();
        let slot = size_of::<(Place, u32)>() + size_of::<Place>() + 3 * size_of::<u32>();
        scratch.try_grow(cells_memory(index.cells()) + index.slots() * slot)?;
        let reach = self.reach(index.times())?;
        let cuts = self.cuts();
        // Of no use to rank versions by, but no version known later can match.
        let known = match index.last_cut() {
            Some(last) => cuts.known(self.known_by, last),
            None => cuts,
        };
        let prune = Prune {
            event_time: reach,
            keys: index.keys.sorted().map(|keys| Arc::new(keys) as _),
            ..known.prune()
        };
        let entered = metrics.versions_entered.clone();
        index.clear();
        let wanted = distinct(&self.features);
        let mut columns = rank::columns(self.table.record_identifier);
        let keeper = (self.passes == Passes::One && spilled.is_none()).then(|| {
            columns.features.extend(&wanted);
            Keeper::new(memory.new_empty())
        });
        let probe = Probe::new(index, cuts, self.known_by, tasks, entered, keeper);
        let probe = Arc::new(probe);
        let (versions, files) = if let Some(spilled) = spilled {
            spilled.pass(tasks, &probe).await?;
            let files = spilled.files();
            (Versions::Spilled(spilled), files)
        } else {
            let history = self.reachable(reach, &metrics.pass);
            pass(&history, &columns, prune, tasks, &probe, &metrics.pass).await?;
            let files = history.files.len();
            (Versions::Stored(history), files)
        };
        let kept = probe.kept();
        let (places, winner_of_slot) = self.winners(&probe, files)?;
        drop((probe, scratch));

        let winner = |slot: &u32| winner_of_slot.get(*slot as usize).copied();
        let winners = slot_of_row.iter().map(|slot| winner(slot).unwrap_or(NONE));
        let winners: Vec<u32> = winners.collect();
        metrics
            .rows_matched
            .add(winners.iter().filter(|winner| **winner != NONE).count());
        memory.try_grow(winners.len() * size_of::<u32>())?;
        let source = Source {
            table: Arc::clone(&self.table),
            versions,
            features: wanted.into(),
            kept: kept.map(Arc::new),
            metrics: metrics.pass.files,
            files_fetched: metrics.files_fetched,
        };
        let columns = source.columns(places, tasks, memory).await?;
        let column = |feature| columns.get(feature).cloned();
        let features = self.features.iter().filter_map(column).collect();
        Ok(Matches { winners, features })
    }

    /// Bytes per row of the spine, about, that hold what [`Self::matches`] found, and those it takes
    /// beside them until it has: cells and what they become, and copies of the features. Each row
    /// is taken to match a version of its own.
    pub(crate) fn memory_per_row(&self) -> (usize, usize) {
        let fields = self.table.state_schema.fields();
        let feature = |feature: &usize| match fields[*feature].data_type().primitive_width() {
            Some(width) => width + 1,
            None => 32,
        };
        let features: usize = self.features.iter().map(feature).sum();
        let copies = match self.passes {
            Passes::One => 2,
            Passes::Two => 1,
        };
        let found = size_of::<u32>() + features;
        let beside = cells_memory(1) + 2 * size_of::<Place>() + 5 * size_of::<u32>();
        (found, beside + copies * features)
    }

    /// Whether rows that have one key for `other` have one for this group too.
    pub(crate) fn shares_key(&self, other: &Self) -> bool {
        let key_type = |group: &Self| {
            let identifier = group.table.record_identifier;
            group
                .table
                .state_schema
                .field(identifier)
                .data_type()
                .clone()
        };
        self.key.eq(&other.key) && key_type(self) == key_type(other)
    }

    /// Whether an index for `other` is one for this group too.
    pub(crate) fn shares_index(&self, other: &Self) -> bool {
        let cut = |group: &Self| match &group.known_at {
            KnownAt::Spine(cut) => Some(Arc::clone(cut)),
            KnownAt::Always | KnownAt::Constant(_) => None,
        };
        self.shares_key(other) && self.time.eq(&other.time) && cut(self) == cut(other)
    }

    /// The key of every row.
    pub(crate) fn keys(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        evaluate(&self.key, batch)
    }

    /// The time of every row.
    pub(crate) fn times(&self, batch: &RecordBatch) -> Result<Vec<Option<Instant>>> {
        instants(&evaluate(&self.time, batch)?)
    }

    /// The spine's keys, times and cuts as an index, and the slot of each row.
    pub(crate) fn index(
        &self,
        spine: &Spine,
        memory: &Arc<MemoryReservation>,
    ) -> Result<IndexedSpine> {
        let memory = memory.new_empty();
        let identifier = self.table.state_schema.field(self.table.record_identifier);
        let mut rows = SpineRows::try_new(identifier.data_type())?;
        for batch in &spine.batches {
            let times = self.times(batch)?;
            let cuts = match &self.known_at {
                KnownAt::Spine(cut) => Some(instants(&evaluate(cut, batch)?)?),
                KnownAt::Always | KnownAt::Constant(_) => None,
            };
            rows.push(&self.keys(batch)?, &times, cuts.as_deref())?;
            memory.try_grow(rows.memory().saturating_sub(memory.size()))?;
        }
        let (index, slot_of_row) = SpineIndex::new(rows, &memory)?;
        Ok(IndexedSpine {
            index: Arc::new(index),
            slot_of_row,
            _memory: memory,
        })
    }

    /// When the versions happened that may match a row, given the first time of the rows and the
    /// last: never, where no row has one.
    pub(crate) fn reach(&self, times: Option<(Instant, Instant)>) -> Result<EventRange> {
        Ok(match times {
            Some((first, last)) => EventRange {
                from: self.max_age.map(|age| before(first, age)).transpose()?,
                to: Some(self.clocks.valid.map_or(last, |valid| valid.min(last))),
            },
            None => EventRange {
                from: Some(Instant::from_micros(1)),
                to: Some(Instant::from_micros(0)),
            },
        })
    }

    /// The cuts that are the same for all rows.
    pub(crate) fn cuts(&self) -> Cuts {
        let cuts = Cuts::from(self.clocks);
        match self.known_at {
            KnownAt::Constant(at) => cuts.known(self.known_by, at),
            KnownAt::Always | KnownAt::Spine(_) => cuts,
        }
    }

    /// The files that may hold a version within `reach`.
    pub(crate) fn reachable(&self, reach: EventRange, metrics: &PassMetrics) -> History {
        let files = self.files.prune(reach);
        metrics.files.count_list(&files);
        History {
            table: Arc::clone(&self.table),
            reader: Arc::clone(&self.reader),
            files: files.files.into(),
        }
    }

    /// The distinct places of the winners, sorted, and for each slot the position of its winner
    /// among them or [`NONE`].
    fn winners(&self, probe: &Probe, files: usize) -> Result<(Vec<Place>, Vec<u32>)> {
        let index = &probe.index;
        let mut won: Vec<(Place, u32)> = Vec::with_capacity(index.slots());
        probe.settle(|slot, best| {
            if best.tombstone {
                return Ok(());
            }
            // The top-ranked version is the youngest: when it is too old, so is every other.
            if let Some(age) = self.max_age
                && best.event_time() < before(index.time(slot), age)?
            {
                return Ok(());
            }
            let slot = u32::try_from(slot).map_err(|_| Error::internal("too many slots"))?;
            won.push((Place::from(best), slot));
            Ok(())
        })?;
        let mut places: Vec<Place> = Vec::with_capacity(won.len());
        let mut winner_of_slot = vec![NONE; index.slots()];
        for (file, mut rows) in (0_u32..).zip(by_file(&won, files)) {
            rows.sort_unstable();
            for same in rows.chunk_by(|a, b| a.0 == b.0) {
                let winner = places.len() as u32;
                places.push(Place {
                    file,
                    row: same[0].0,
                });
                for (_, slot) in same {
                    winner_of_slot[*slot as usize] = winner;
                }
            }
        }
        Ok((places, winner_of_slot))
    }
}

fn evaluate(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<ArrayRef> {
    expr.evaluate(batch)?.into_array(batch.num_rows())
}

/// File by file the row and the slot of each winner, which `won` has in any order.
fn by_file(won: &[(Place, u32)], files: usize) -> impl Iterator<Item = Vec<(u32, u32)>> {
    let mut counts = vec![0_usize; files];
    for (place, _) in won {
        counts[place.file as usize] += 1;
    }
    let mut sorted: Vec<Vec<_>> = counts.into_iter().map(Vec::with_capacity).collect();
    for (place, slot) in won {
        sorted[place.file as usize].push((place.row, *slot));
    }
    sorted.into_iter()
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            table,
            files,
            clocks,
            key,
            time,
            max_age,
            known_at,
            known_by,
            features,
            passes,
            ..
        } = self;
        write!(f, "{} (key={key}, time={time}", table.name())?;
        if let Some(age) = max_age {
            write!(f, ", max_age={}", Age(*age))?;
        }
        match known_at {
            KnownAt::Always => {}
            KnownAt::Constant(at) => write!(f, ", known_at={at} by {known_by}")?,
            KnownAt::Spine(at) => write!(f, ", known_at={at} by {known_by}")?,
        }
        clocks.explain(f)?;
        let fields = table.state_schema.fields();
        let names: Vec<_> = features
            .iter()
            .map(|feature| fields[*feature].name().clone())
            .collect();
        write!(
            f,
            ", features=[{}], files={}, passes={passes})",
            names.join(", "),
            files.files.len()
        )
    }
}
