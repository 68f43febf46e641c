//! The right side of an as-of join, walked once: the current row, and the best one so far.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::row::{OwnedRow, Row, RowConverter, Rows, SortField};
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::PhysicalExpr;
use futures::StreamExt;

use crate::ranking::fetch::compact;

/// The expressions of one side.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) time: Arc<dyn PhysicalExpr>,
}

/// Turns keys and times into rows that compare as bytes; one pair for both sides.
#[derive(Debug)]
pub(crate) struct Converters {
    /// `None` for a join without keys.
    keys: Option<RowConverter>,
    times: RowConverter,
}

/// Keys and times of one batch.
#[derive(Debug)]
pub(crate) struct Sorted {
    keys: Option<Rows>,
    times: Rows,
    /// False where a key or the time is null: such a row matches nothing.
    can_match: Vec<bool>,
}

impl Converters {
    pub(crate) fn try_new(side: &Side, schema: &arrow::datatypes::Schema) -> Result<Self> {
        let field = |expr: &Arc<dyn PhysicalExpr>| Ok(SortField::new(expr.data_type(schema)?));
        let keys = side.keys.iter().map(field).collect::<Result<Vec<_>>>()?;
        let keys = if keys.is_empty() {
            None
        } else {
            Some(RowConverter::new(keys)?)
        };
        Ok(Self {
            keys,
            times: RowConverter::new(vec![field(&side.time)?])?,
        })
    }

    pub(crate) fn convert(&self, side: &Side, batch: &RecordBatch) -> Result<Sorted> {
        let rows = batch.num_rows();
        let column = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(batch)?.into_array(rows);
        let keys = side
            .keys
            .iter()
            .map(column)
            .collect::<Result<Vec<ArrayRef>>>()?;
        let time = column(&side.time)?;
        let mut can_match = vec![true; rows];
        for column in keys.iter().chain([&time]) {
            if let Some(nulls) = column.logical_nulls() {
                for (row, can_match) in can_match.iter_mut().enumerate() {
                    *can_match &= nulls.is_valid(row);
                }
            }
        }
        let times = self.times.convert_columns(&[time])?;
        let convert = |converter: &RowConverter| converter.convert_columns(&keys);
        let keys = self.keys.as_ref().map(convert).transpose()?;
        Ok(Sorted {
            keys,
            times,
            can_match,
        })
    }
}

impl Sorted {
    pub(crate) fn can_match(&self, row: usize) -> bool {
        self.can_match[row]
    }

    pub(crate) fn key(&self, row: usize) -> Option<Row<'_>> {
        self.keys.as_ref().map(|keys| keys.row(row))
    }

    pub(crate) fn time(&self, row: usize) -> Row<'_> {
        self.times.row(row)
    }
}

/// The best right row so far for its key. Its batch is named by a number that grows.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) batch: usize,
    pub(crate) row: usize,
    key: Option<OwnedRow>,
    time: OwnedRow,
    /// What decides among rows of one time, once there were two.
    rest: Option<OwnedRow>,
}

impl Candidate {
    pub(crate) fn has_key(&self, key: Option<Row<'_>>) -> bool {
        self.key.as_ref().map(OwnedRow::row) == key
    }
}

/// A batch of the right side.
#[derive(Debug)]
struct Current {
    batch: RecordBatch,
    sorted: Sorted,
    /// The columns that decide among rows of one time, converted when first needed.
    rest: Option<Rows>,
    row: usize,
}

/// See the module.
pub(crate) struct Right {
    stream: SendableRecordBatchStream,
    side: Side,
    /// Columns in the order in which they decide, and their converter.
    rest_columns: Vec<usize>,
    rest: RowConverter,
    current: Option<Current>,
    ended: bool,
    number: usize,
    candidate: Option<Candidate>,
    /// Batches that picks still refer to: the current one, and a lone row of an earlier one.
    open: Vec<(usize, RecordBatch)>,
}

impl Right {
    pub(crate) fn try_new(
        stream: SendableRecordBatchStream,
        side: Side,
        rest_columns: Vec<usize>,
    ) -> Result<Self> {
        let schema = stream.schema();
        let field = |column: &usize| SortField::new(schema.field(*column).data_type().clone());
        let rest = RowConverter::new(rest_columns.iter().map(field).collect())?;
        Ok(Self {
            stream,
            side,
            rest_columns,
            rest,
            current: None,
            ended: false,
            number: 0,
            candidate: None,
            open: Vec::new(),
        })
    }

    pub(crate) fn candidate(&self) -> Option<&Candidate> {
        self.candidate.as_ref()
    }

    /// The batch that a candidate lies in.
    pub(crate) fn open(&self, number: usize) -> Option<&RecordBatch> {
        self.open
            .iter()
            .find(|(open, _)| *open == number)
            .map(|(_, batch)| batch)
    }

    /// Whether the current row is there, after skipping those that match nothing. False at the
    /// end. Calls `leaving` before a batch is left, with what it still holds open.
    pub(crate) async fn settle(
        &mut self,
        converters: &Converters,
        mut leaving: impl FnMut(&Self) -> Result<()>,
    ) -> Result<bool> {
        loop {
            if let Some(current) = &mut self.current {
                let rows = current.batch.num_rows();
                while current.row < rows && !current.sorted.can_match(current.row) {
                    current.row += 1;
                }
                if current.row < rows {
                    return Ok(true);
                }
            }
            if self.ended {
                return Ok(false);
            }
            match self.stream.next().await.transpose()? {
                Some(batch) => {
                    leaving(self)?;
                    self.open_next(converters, batch)?;
                }
                None => self.ended = true,
            }
        }
    }

    fn open_next(&mut self, converters: &Converters, batch: RecordBatch) -> Result<()> {
        let mut kept = None;
        if let Some(candidate) = &mut self.candidate {
            let old = self
                .open
                .iter()
                .find(|(number, _)| *number == candidate.batch);
            if let Some((_, old)) = old {
                // Its row alone goes on, so that its batch can be freed.
                let row = copied(old, vec![candidate.row as u64])?;
                if candidate.rest.is_none() {
                    let rest = self
                        .rest
                        .convert_columns(&columns(&row, &self.rest_columns))?;
                    candidate.rest = Some(rest.row(0).owned());
                }
                self.number += 1;
                candidate.batch = self.number;
                candidate.row = 0;
                kept = Some((self.number, row));
            }
        }
        self.number += 1;
        self.open = kept
            .into_iter()
            .chain([(self.number, batch.clone())])
            .collect();
        let sorted = converters.convert(&self.side, &batch)?;
        self.current = Some(Current {
            batch,
            sorted,
            rest: None,
            row: 0,
        });
        Ok(())
    }

    /// How the current row's key compares with `key`, and its time with `time`.
    pub(crate) fn compare(
        &self,
        key: Option<Row<'_>>,
        time: Row<'_>,
    ) -> Option<(Ordering, Ordering)> {
        let current = self.current.as_ref()?;
        let sorted = &current.sorted;
        Some((
            sorted.key(current.row).cmp(&key),
            sorted.time(current.row).cmp(&time),
        ))
    }

    /// Goes on to the next row.
    pub(crate) fn skip(&mut self) {
        if let Some(current) = &mut self.current {
            current.row += 1;
        }
    }

    /// Makes the current row the candidate, unless the candidate has its key and time and its
    /// other columns are not less; then goes on to the next row.
    pub(crate) fn offer(&mut self) -> Result<()> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        let row = current.row;
        current.row += 1;
        let (key, time) = (current.sorted.key(row), current.sorted.time(row));
        let mut rest = None;
        if let Some(candidate) = &mut self.candidate
            && candidate.has_key(key)
            && candidate.time.row() == time
        {
            let rows = match current.rest.take() {
                Some(rows) => rows,
                None => self
                    .rest
                    .convert_columns(&columns(&current.batch, &self.rest_columns))?,
            };
            let own = rows.row(row).owned();
            // A candidate without it lies in the current batch: leaving a batch sets it.
            let other = candidate
                .rest
                .take()
                .unwrap_or_else(|| rows.row(candidate.row).owned());
            current.rest = Some(rows);
            if own.row() <= other.row() {
                candidate.rest = Some(other);
                return Ok(());
            }
            rest = Some(own);
        }
        let key = key.map(|key| key.owned());
        let time = time.owned();
        self.candidate = Some(Candidate {
            batch: self.number,
            row,
            key,
            time,
            rest,
        });
        Ok(())
    }
}

/// `rows` of `batch`, sharing no memory with it.
pub(crate) fn copied(batch: &RecordBatch, rows: Vec<u64>) -> Result<RecordBatch> {
    let taken = take_record_batch(batch, &UInt64Array::from(rows))?;
    let (schema, columns, rows) = taken.into_parts();
    let columns = columns.into_iter().map(compact).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        schema, columns, &options,
    )?)
}

fn columns(batch: &RecordBatch, columns: &[usize]) -> Vec<ArrayRef> {
    columns
        .iter()
        .map(|column| Arc::clone(batch.column(*column)))
        .collect()
}
