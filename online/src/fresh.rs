//! Read your writes: accepted rows that are in no offline file yet, as versions a statement reads
//! beside the files it lists.
//!
//! Where this server writes the offline store itself, write time and API invocation time of a row
//! are the time of its acknowledgement, here as later in the file: cuts and ranks are the same
//! wherever the row is read from. Where SageMaker writes it, a row is [`PENDING`] until it is in a
//! file: no cut of the system's time has it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant as Clock;

use arrow::array::{
    ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array, new_null_array,
};
use arrow::compute::{cast, take_record_batch};
use async_trait::async_trait;
use featureflight_catalog::listing::FileList;
use featureflight_catalog::scan::prune::Prune;
use featureflight_catalog::scan::versions::{Columns, InstantColumn, VersionBatch};
use featureflight_catalog::table::{FeatureTable, FileSet};
use featureflight_catalog::unlanded::{Candidates, Fresh, PENDING, Unlanded, Waiting};
use featureflight_catalog::{Error, Instant, Kind, Result};

use crate::arrivals::{self, Arrivals, Waits};
use crate::gateway::{Gateway, OfflineBy};
use crate::offline::REMEMBERED;
use crate::outbox::{Outbox, PendingBlock};
use crate::record::Block;

#[async_trait]
impl Fresh for Gateway {
    async fn waiting(&self, group: &str, cut: Option<Instant>) -> Result<Waiting> {
        if let (OfflineBy::Gateway(_), Some(cut)) = (&self.offline, cut) {
            self.outbox.settle_clock(cut).await?;
        }
        let turn = self.outbox.turns().of(group).listing;
        let turn = turn.read_owned().await;
        let waits = arrivals::waiting(&self.outbox, group);
        // Asked for last: what was settled before the look above had landed before this.
        let landed_at = self.landed.of(group);
        let waited = (!waits.is_empty()).then(|| {
            Arc::new(Waited {
                outbox: Arc::clone(&self.outbox),
                arrivals: match &self.offline {
                    OfflineBy::Service(arrivals) => Some(Arc::clone(arrivals)),
                    OfflineBy::Gateway(_) => None,
                },
                group: group.to_owned(),
                waits,
                taken: Clock::now(),
            }) as Arc<dyn Candidates>
        });
        Ok(Waiting {
            landed_at,
            versions: waited,
            turn: Some(turn),
        })
    }

    fn still_there(&self, set: &FileSet, started: Instant) -> Result<()> {
        if !self.outbox.turns().is_gone(&set.location.url, started) {
            return Ok(());
        }
        let what = match &set.group {
            Some(group) => format!("feature group '{group}' was dropped"),
            None => format!(
                "the feature group with the files of {} was dropped",
                set.location.url
            ),
        };
        Err(Error::not_found(format!("{what} while the statement ran")))
    }
}

/// What waited of a group at one moment.
#[derive(Debug)]
struct Waited {
    outbox: Arc<Outbox>,
    /// Where SageMaker writes the offline store.
    arrivals: Option<Arc<Arrivals>>,
    group: String,
    waits: Vec<Waits>,
    taken: Clock,
}

#[async_trait]
impl Candidates for Waited {
    async fn missing_from(&self, list: &FileList) -> Result<Option<Arc<dyn Unlanded>>> {
        if let Some(arrivals) = &self.arrivals {
            arrivals
                .look(&self.outbox, &self.group, list, &self.waits)
                .await?;
        }
        let pending = self.arrivals.is_some();
        let files = list.files.iter();
        let mut listed: HashSet<&str> = files.map(|file| file.meta.location.as_ref()).collect();
        // A row whose file was replaced since is in another that is listed.
        if self.taken.elapsed() >= REMEMBERED {
            let what = "listing the files took too long; run it again";
            return Err(Error::new(Kind::Aborted, what));
        }
        listed.extend(list.replaced.iter().map(String::as_str));
        let waits = self.waits.iter().filter_map(|(block, rows)| {
            let rows = block.not_landed(rows.clone(), |file| listed.contains(file));
            (!rows.is_empty()).then(|| (Arc::clone(block), rows))
        });
        let waits: Vec<_> = waits.collect();
        if waits.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Rows {
            outbox: Arc::clone(&self.outbox),
            waits,
            pending,
        })))
    }
}

/// Rows that are in no file.
#[derive(Debug)]
struct Rows {
    outbox: Arc<Outbox>,
    waits: Vec<Waits>,
    /// Somebody else will write them.
    pending: bool,
}

impl Unlanded for Rows {
    fn batches(&self) -> usize {
        self.waits.len()
    }

    fn rows(&self, batch: usize) -> usize {
        self.waits[batch].1.len()
    }

    fn may_pass(&self, batch: usize, prune: &Prune) -> bool {
        self.waits[batch].0.may_pass(prune)
    }

    fn bytes(&self) -> u64 {
        self.waits.iter().map(|(block, _)| block.bytes()).sum()
    }

    fn read(&self, batch: usize, table: &FeatureTable, columns: &Columns) -> Result<VersionBatch> {
        let (pending, rows) = &self.waits[batch];
        let block = pending.read()?;
        self.outbox.check_kept(pending, &block, rows)?;
        let mut versions = versions(pending, &block, rows, table, columns)?;
        if self.pending && columns.write_time {
            versions.write_time = Some(InstantColumn {
                micros: vec![PENDING.micros; rows.len()].into(),
                nanos: Some(vec![PENDING.nanos; rows.len()]),
            });
        }
        Ok(versions)
    }
}

/// Rows of a block as versions, written and received when they were acknowledged.
pub(crate) fn versions(
    pending: &PendingBlock,
    block: &Block,
    rows: &[usize],
    table: &FeatureTable,
    columns: &Columns,
) -> Result<VersionBatch> {
    pending.summarize(block);
    let instants: Vec<Instant> = rows.iter().map(|row| block.instants()[*row]).collect();
    let taken = if rows.len() == block.len() {
        block.rows.clone()
    } else {
        let rows = rows.iter().map(|row| *row as u64);
        let rows = UInt64Array::from_iter_values(rows);
        take_record_batch(&block.rows, &rows).map_err(unfit)?
    };
    let feature = |at: &usize| feature(table, *at, block, &taken, &instants);
    let accepted = || InstantColumn {
        micros: vec![pending.accepted_at.micros; rows.len()].into(),
        nanos: None,
    };
    Ok(VersionBatch {
        first_row: 0,
        rows: rows.len(),
        features: columns
            .features
            .iter()
            .map(feature)
            .collect::<Result<_>>()?,
        event_time: columns.event_time.then(|| instant_column(&instants)),
        write_time: columns.write_time.then(accepted),
        api_invocation_time: columns.api_invocation_time.then(accepted),
        is_deleted: columns
            .is_deleted
            .then(|| BooleanArray::from(vec![block.operation.is_delete(); rows.len()])),
    })
}

/// The feature at `at` of the group's definition, in the type of its state.
fn feature(
    table: &FeatureTable,
    at: usize,
    block: &Block,
    rows: &RecordBatch,
    instants: &[Instant],
) -> Result<ArrayRef> {
    let field = table.state_schema.field(at);
    if at == table.event_time {
        let micros = instants.iter().map(|at| at.to_micros_floor());
        let micros = TimestampMicrosecondArray::from_iter_values(micros);
        return Ok(Arc::new(micros.with_timezone("UTC")));
    }
    // A delete has no other features; the definition may have gained some since.
    match block.layout.schema.column_with_name(field.name()) {
        Some((position, _)) => cast(rows.column(position), field.data_type()).map_err(unfit),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    }
}

fn instant_column(instants: &[Instant]) -> InstantColumn {
    let whole = instants.iter().all(|at| at.nanos == 0);
    InstantColumn {
        micros: instants.iter().map(|at| at.micros).collect(),
        nanos: (!whole).then(|| instants.iter().map(|at| at.nanos).collect()),
    }
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::internal("accepted rows do not fit their feature group").with_source(error)
}
