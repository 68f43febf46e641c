//! Accepted rows: a [`Block`] of rows of one group as Arrow columns, and a [`Record`] as one row
//! of it, in the text forms that online stores take.

mod column;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use featureflight_catalog::table::EventTimeForm;
use featureflight_catalog::{Error, Instant, Result, value_bytes};
use serde::{Deserialize, Serialize};

use crate::group::{Layout, Ttl};

pub(crate) use column::column;
pub use text::{event_time_seconds, fractional};

/// What a written row does to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Replaces the whole record.
    Put,
    /// Hides the record and remembers the delete's event time.
    SoftDelete,
    /// Removes the record and forgets its event time.
    HardDelete,
}

impl Operation {
    pub fn is_delete(self) -> bool {
        self != Self::Put
    }
}

/// Accepted rows of one group that all do the same. Identifier and event time are never null, and
/// every value is one the group's definition allows.
#[derive(Debug, Clone)]
pub struct Block {
    pub layout: Arc<Layout>,
    pub operation: Operation,
    /// The time to live the rows were accepted under.
    pub ttl: Option<Ttl>,
    /// Columns of `layout.schema`.
    pub rows: RecordBatch,
    /// Event times, one per row.
    instants: Vec<Instant>,
}

impl Block {
    /// # Errors
    /// `Internal` when `rows` are not of the layout; `DataLoss` for an event time that cannot be
    /// read. Neither happens to what validation let through.
    pub fn new(
        layout: Arc<Layout>,
        operation: Operation,
        ttl: Option<Ttl>,
        rows: RecordBatch,
    ) -> Result<Self> {
        if rows.schema_ref().fields() != layout.schema.fields() {
            return Err(Error::internal("rows of a block have another layout"));
        }
        let instants = instants(&layout, &rows)?;
        Ok(Self {
            layout,
            operation,
            ttl,
            rows,
            instants,
        })
    }

    pub fn len(&self) -> usize {
        self.rows.num_rows()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What its values take, see [`value_bytes`].
    pub fn bytes(&self) -> usize {
        value_bytes(&self.rows)
    }

    /// The event time of every row.
    pub fn instants(&self) -> &[Instant] {
        &self.instants
    }

    /// The rows where `keep` is true, in order.
    ///
    /// # Errors
    /// `Internal` when `keep` has another length.
    pub fn filter(&self, keep: &BooleanArray) -> Result<Self> {
        let rows = filter_record_batch(&self.rows, keep)
            .map_err(|error| Error::internal("a block cannot be filtered").with_source(error))?;
        let kept = self.instants.iter().zip(keep.values());
        Ok(Self {
            instants: kept.filter_map(|(at, keep)| keep.then_some(*at)).collect(),
            layout: Arc::clone(&self.layout),
            operation: self.operation,
            ttl: self.ttl,
            rows,
        })
    }

    /// `rows` rows from `from`, without a copy.
    #[must_use]
    pub fn slice(&self, from: usize, rows: usize) -> Self {
        Self {
            layout: Arc::clone(&self.layout),
            operation: self.operation,
            ttl: self.ttl,
            rows: self.rows.slice(from, rows),
            instants: self.instants[from..from + rows].to_vec(),
        }
    }

    /// The record identifier of a row, as text.
    pub fn identifier(&self, row: usize) -> String {
        self.text(self.layout.record_identifier, row)
            .unwrap_or_default()
    }

    /// A value as the text that `PutRecord` takes; `None` for a null.
    pub fn text(&self, column: usize, row: usize) -> Option<String> {
        cell_text(self.rows.column(column), row)
    }
}

pub(crate) fn cell_text(values: &ArrayRef, row: usize) -> Option<String> {
    if values.is_null(row) {
        return None;
    }
    Some(match values.data_type() {
        DataType::Int64 => values.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => fractional(values.as_primitive::<Float64Type>().value(row)),
        _ => values.as_string::<i32>().value(row).to_owned(),
    })
}

fn instants(layout: &Layout, rows: &RecordBatch) -> Result<Vec<Instant>> {
    let column = rows.column(layout.event_time);
    event_times(layout.event_time_form(), column).map_err(|row| {
        let group = &layout.group;
        Error::data_loss(format!(
            "the event time of row {row} of a block of feature group '{group}' cannot be read"
        ))
    })
}

/// A column of event times in that form, as instants.
///
/// # Errors
/// The first row that cannot be read as one.
pub(crate) fn event_times(form: EventTimeForm, column: &ArrayRef) -> Result<Vec<Instant>, usize> {
    let instant = |row: usize| match form {
        _ if column.is_null(row) => None,
        EventTimeForm::Seconds => {
            Instant::from_seconds(column.as_primitive::<Float64Type>().value(row))
        }
        EventTimeForm::Text => Instant::parse(column.as_string::<i32>().value(row)).ok(),
    };
    (0..column.len())
        .map(|row| instant(row).ok_or(row))
        .collect()
}

/// One row of a block. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Record {
    pub block: Arc<Block>,
    pub row: usize,
}

impl Record {
    pub fn group(&self) -> &str {
        &self.block.layout.group
    }

    pub fn operation(&self) -> Operation {
        self.block.operation
    }

    pub fn identifier(&self) -> String {
        self.block.identifier(self.row)
    }

    pub fn event_time(&self) -> Instant {
        self.block.instants[self.row]
    }

    /// The event time in the form of the group's definition.
    pub fn event_time_text(&self) -> String {
        let column = self.block.layout.event_time;
        self.block.text(column, self.row).unwrap_or_default()
    }

    /// When the record stops being there online.
    pub fn expiry(&self) -> Option<Instant> {
        self.block.ttl?.expiry(self.event_time())
    }

    /// Name and text of every value that is not null, identifier and event time included.
    pub fn values(&self) -> impl Iterator<Item = (&str, String)> {
        let fields = self.block.layout.schema.fields().iter().enumerate();
        fields
            .filter_map(|(at, field)| Some((field.name().as_str(), self.block.text(at, self.row)?)))
    }
}
