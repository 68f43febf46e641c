//! Accepted rows and rows of files, compared by all they say.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt16Array};
use arrow::compute::concat;
use arrow::datatypes::DataType;
use arrow::row::{RowConverter, SortField};
use featureflight_catalog::listing::{DataFile, EventRange, FileList};
use featureflight_catalog::scan::files::ScanMetrics;
use featureflight_catalog::scan::prune::{Prune, SortedKeys};
use featureflight_catalog::scan::versions::{Columns, FileReader, VersionBatch};
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};
use futures::TryStreamExt;

use super::Waits;
use crate::fresh::versions;
use crate::outbox::PendingBlock;

/// How much earlier than it was sent a row may seem to have been received: the service keeps whole
/// seconds, and its clock and ours are not the same. The same row from someone else in that time
/// counts as this one, until this one is there too.
const EARLIER: i64 = 2_000_000;

/// More keys than this rule out next to nothing.
const MOST_KEYS: usize = 1 << 16;

/// Rows that are looked for.
pub(super) struct Wanted {
    table: Arc<FeatureTable>,
    blocks: Vec<Arc<PendingBlock>>,
    contents: Contents,
    /// By content, in the order of acceptance.
    rows: HashMap<u128, VecDeque<Row>>,
    event_times: EventRange,
    keys: Option<Arc<SortedKeys>>,
}

struct Row {
    block: usize,
    row: usize,
    /// No row that was written for it has an API invocation time before this.
    received: i64,
}

impl Wanted {
    /// `waiting` are rows that were sent. Blocks the thread.
    ///
    /// # Errors
    /// Those of reading the outbox.
    pub(super) fn new(table: Arc<FeatureTable>, waiting: Vec<Waits>) -> Result<Self> {
        let contents = Contents::new(&table)?;
        let columns = columns(&table);
        let mut rows: HashMap<u128, VecDeque<Row>> = HashMap::new();
        let mut event_times: Option<EventRange> = None;
        let mut identifiers: Vec<ArrayRef> = Vec::new();
        for (at, (block, of_block)) in waiting.iter().enumerate() {
            let batch = versions(block, &block.read()?, of_block, &table, &columns)?;
            for (row, content) in of_block.iter().zip(contents.of(&batch)?) {
                let sent = block.first_sent(*row).unwrap_or(block.accepted_at);
                let received = sent.micros.div_euclid(1_000_000) * 1_000_000 - EARLIER;
                let same = rows.entry(content).or_default();
                same.push_back(Row {
                    block: at,
                    row: *row,
                    received,
                });
            }
            let range = block.event_times()?;
            event_times = Some(event_times.map_or(range, |all| all.hull(range)));
            identifiers.push(Arc::clone(&batch.features[table.record_identifier]));
        }
        let count: usize = identifiers.iter().map(|column| column.len()).sum();
        let keys = (count > 0 && count <= MOST_KEYS).then(|| {
            let columns: Vec<_> = identifiers.iter().map(AsRef::as_ref).collect();
            concat(&columns).map_err(unfit)
        });
        let keys = keys.transpose()?;
        let keys = keys.and_then(|keys| SortedKeys::from_array(&keys));
        Ok(Self {
            table,
            contents,
            rows,
            event_times: event_times.unwrap_or(EventRange::ALL),
            keys: keys.map(Arc::new),
            blocks: waiting.into_iter().map(|(block, _)| block).collect(),
        })
    }

    /// Which rows of which blocks each file has. A row of a file is one accepted row at most.
    ///
    /// # Errors
    /// Those of reading the files.
    pub(super) async fn find(
        mut self,
        reader: &Arc<FileReader>,
        files: &[Arc<DataFile>],
    ) -> Result<Vec<(Arc<DataFile>, Arc<PendingBlock>, Vec<usize>)>> {
        let mut found: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        let files = self.may_hold_some(files);
        let numbered = files.clone().into_iter().enumerate();
        let columns = columns(&self.table);
        let run = reader.open_many(&self.table, numbered, &columns, &ScanMetrics::unobserved());
        let prune = Prune {
            event_time: self.event_times,
            keys: self.keys.clone().map(|keys| keys as _),
            ..Prune::default()
        };
        for mut batches in run.pruning(prune).streams(1) {
            while let Some((file, batch)) = batches.try_next().await? {
                self.meet(&batch, |block, row| {
                    found.entry((file, block)).or_default().push(row);
                })?;
            }
        }
        let found = found.into_iter().map(|((file, block), rows)| {
            (
                Arc::clone(&files[file]),
                Arc::clone(&self.blocks[block]),
                rows,
            )
        });
        Ok(found.collect())
    }

    /// The files whose hour folder may hold the event times.
    fn may_hold_some(&self, files: &[Arc<DataFile>]) -> Vec<Arc<DataFile>> {
        let list = FileList {
            files: files.to_vec(),
            listed_at: std::time::SystemTime::UNIX_EPOCH,
            listed: files.len(),
            pruned: 0,
            replaced: Arc::default(),
        };
        list.prune(self.event_times).files
    }

    /// Takes out the rows that `batch` has.
    fn meet(&mut self, batch: &VersionBatch, mut found: impl FnMut(usize, usize)) -> Result<()> {
        let received = batch.api_invocation_time.as_ref();
        let received = received.ok_or_else(|| Error::internal("a batch lacks what was asked"))?;
        for (at, content) in self.contents.of(batch)?.into_iter().enumerate() {
            let Some(same) = self.rows.get_mut(&content) else {
                continue;
            };
            let received = received.get(at).micros;
            let first = same.iter().position(|row| row.received <= received);
            if let Some(row) = first.and_then(|first| same.remove(first)) {
                found(row.block, row.row);
            }
        }
        Ok(())
    }
}

fn columns(table: &FeatureTable) -> Columns {
    Columns {
        features: (0..table.state_schema.fields().len()).collect(),
        event_time: true,
        write_time: false,
        api_invocation_time: true,
        is_deleted: true,
    }
}

/// What versions say, as numbers so long that two are equal only if the versions are.
struct Contents {
    converter: RowConverter,
    hashers: [RandomState; 2],
}

impl Contents {
    fn new(table: &FeatureTable) -> Result<Self> {
        let features = table.state_schema.fields().iter();
        let features = features.map(|field| field.data_type().clone());
        let more = [DataType::UInt16, DataType::Boolean];
        let fields = features.chain(more).map(SortField::new).collect();
        Ok(Self {
            converter: RowConverter::new(fields).map_err(unfit)?,
            hashers: [RandomState::new(), RandomState::new()],
        })
    }

    /// Of every version of a batch of [`columns`].
    fn of(&self, batch: &VersionBatch) -> Result<Vec<u128>> {
        let missing = || Error::internal("a batch lacks what was asked for");
        let event_time = batch.event_time.as_ref().ok_or_else(missing)?;
        let nanos = match &event_time.nanos {
            Some(nanos) => UInt16Array::from(nanos.clone()),
            None => UInt16Array::from(vec![0; batch.rows]),
        };
        let deleted = batch.is_deleted.clone().ok_or_else(missing)?;
        let mut columns = batch.features.clone();
        columns.extend([Arc::new(nanos) as ArrayRef, Arc::new(deleted)]);
        let rows = self.converter.convert_columns(&columns).map_err(unfit)?;
        let [high, low] = &self.hashers;
        let number =
            |row: &[u8]| u128::from(high.hash_one(row)) << 64 | u128::from(low.hash_one(row));
        Ok(rows.iter().map(|row| number(row.data())).collect())
    }
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::internal("versions cannot be compared").with_source(error)
}
