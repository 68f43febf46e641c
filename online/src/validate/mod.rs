//! Validation before acknowledgement: rows of a request against the group's definition. What
//! passes becomes a [`Block`] of records; what does not is refused by row, column and reason.
//!
//! A request whose columns cannot fit is an error as a whole. After that every row stands for
//! itself, and [`OnError`] says what a refused row means for the rest.

mod columns;
mod event_time;
mod refusal;
mod size;
#[cfg(test)]
mod tests;
mod values;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use featureflight_catalog::{Error, Instant, Result};

use crate::group::{Layout, Ttl, WriteGroup};
use crate::record::{Block, Operation};

pub use refusal::{MAX_LISTED, Refusal, Refusals};
pub use size::{MAX_IDENTIFIER_BYTES, MAX_RECORD_BYTES};

/// What a put that leaves features out means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Partial {
    /// An error: a put replaces the whole record.
    #[default]
    Refuse,
    /// The features left out become null.
    Null,
}

/// What a refused row means for the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnError {
    /// Nothing of the request is accepted.
    #[default]
    RefuseAll,
    /// The good rows are accepted.
    Skip,
}

/// How a request is validated.
#[derive(Debug, Clone, Copy, Default)]
pub struct ValidateOptions {
    pub partial: Partial,
    /// Event times further ahead of the clock than this are refused; `None` sets no bound.
    pub max_future: Option<Duration>,
    /// Instead of the group's own time to live.
    pub ttl: Option<Ttl>,
    /// Position of a column that is no feature: when the record that is there happened, as a
    /// timestamp in microseconds, floored; null where there is none. A row that is not newer is
    /// refused, and so is one of the same microsecond.
    pub stored: Option<usize>,
}

/// Validates the batches of one request, in order.
#[derive(Debug)]
pub struct Validator {
    layout: Arc<Layout>,
    operation: Operation,
    ttl: Option<Ttl>,
    max_future: Option<Duration>,
    /// For every column of the layout the one of the input, where there is one.
    sources: Vec<Option<usize>>,
    stored: Option<usize>,
    /// Rows of the batches before.
    rows: u64,
    refusals: Refusals,
}

impl Validator {
    /// For batches of `schema`, whose columns are named as the group's features: all of them for a
    /// put, record identifier and event time for a delete.
    ///
    /// # Errors
    /// `InvalidArgument` when a column is unknown, named twice, missing or of a type its feature
    /// does not take; the message says which and what to do.
    pub fn new(
        group: &WriteGroup,
        operation: Operation,
        schema: &Schema,
        options: ValidateOptions,
    ) -> Result<Self> {
        let layout = match operation {
            Operation::Put => &group.puts,
            Operation::SoftDelete | Operation::HardDelete => &group.deletes,
        };
        let sources = columns::resolve(layout, operation, schema, options.partial, options.stored)?;
        Ok(Self {
            layout: Arc::clone(layout),
            operation,
            ttl: options.ttl.or(group.ttl),
            max_future: options.max_future,
            sources,
            stored: options.stored,
            rows: 0,
            refusals: Refusals::default(),
        })
    }

    /// The good rows of `batch` at the time `now`. The others are added to [`Self::refusals`].
    ///
    /// # Errors
    /// `Internal` when Arrow's kernels fail; a bad row is not an error.
    pub fn check(&mut self, batch: &RecordBatch, now: Instant) -> Result<Block> {
        let mut wrong = refusal::Wrong::new(batch.num_rows());
        let arrays = (0..self.sources.len())
            .map(|at| self.column(at, batch, now, &mut wrong))
            .collect::<Result<Vec<_>>>()?;
        // Refused rows may hold nulls where the layout has none: they go before the types are set.
        let rows = RecordBatch::try_new(nullable(&self.layout.schema), arrays).map_err(kernel)?;
        size::check(&self.layout, &rows, &mut wrong);
        if let Some(stored) = self.stored {
            let event_times = rows.column(self.layout.event_time);
            wrong.set_column(self.layout.schema.field(self.layout.event_time).name());
            event_time::refuse_older(event_times, batch.column(stored), &mut wrong)?;
        }
        let keep = BooleanArray::from(wrong.good());
        let rows = filter_record_batch(&rows, &keep).map_err(kernel)?;
        let rows = RecordBatch::try_new(Arc::clone(&self.layout.schema), rows.columns().to_vec())
            .map_err(kernel)?;
        self.refusals.add(self.rows, wrong);
        self.rows += batch.num_rows() as u64;
        Block::new(Arc::clone(&self.layout), self.operation, self.ttl, rows)
    }

    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Rows seen so far, refused ones included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    pub fn into_refusals(self) -> Refusals {
        self.refusals
    }

    fn column(
        &self,
        at: usize,
        batch: &RecordBatch,
        now: Instant,
        wrong: &mut refusal::Wrong,
    ) -> Result<ArrayRef> {
        let field = self.layout.schema.field(at);
        let Some(source) = self.sources[at] else {
            return Ok(new_null_array(field.data_type(), batch.num_rows()));
        };
        let values = values::plain(batch.column(source))?;
        wrong.set_column(field.name());
        if at == self.layout.event_time {
            let latest = self.max_future.and_then(|ahead| later(now, ahead));
            return event_time::convert(&values, field.data_type(), latest, wrong);
        }
        let converted = values::convert(&values, field.data_type(), wrong)?;
        if at == self.layout.record_identifier {
            wrong.refuse_nulls(&values, "the record identifier is missing");
        }
        Ok(converted)
    }
}

fn later(now: Instant, ahead: Duration) -> Option<Instant> {
    Instant::from_total_nanos(now.total_nanos() + i128::try_from(ahead.as_nanos()).ok()?)
}

fn nullable(schema: &Schema) -> Arc<Schema> {
    let fields = schema.fields().iter();
    Arc::new(Schema::new(
        fields
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect::<Vec<_>>(),
    ))
}

fn kernel(error: arrow::error::ArrowError) -> Error {
    Error::internal("written rows cannot be converted").with_source(error)
}
