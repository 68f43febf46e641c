//! The walk over two inputs sorted by key and time: per left row the best right row so far.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::interleave;
use arrow::datatypes::SchemaRef;
use datafusion::error::Result;
use datafusion::execution::SendableRecordBatchStream;
use featureflight_catalog::Error;
use futures::StreamExt;

use crate::asof::node::AsofOperator;
use crate::asof::right::{Converters, Right, Side, copied};

/// See the module.
pub(crate) struct Merge {
    left: SendableRecordBatchStream,
    left_side: Side,
    right: Right,
    converters: Converters,
    operator: AsofOperator,
    schema: SchemaRef,
    right_schema: SchemaRef,
}

/// The right rows picked for one left batch. Picked rows are copied out of a right batch before it
/// is left, so that a batch of distant times does not hold every right batch between them.
#[derive(Default)]
struct Picks {
    /// Copied rows, a chunk per right batch that was left.
    chunks: Vec<RecordBatch>,
    /// Rows picked from batches that are still open, by batch number.
    open: HashMap<usize, Vec<u64>>,
    /// Per left row the batch number or chunk, and the row in it.
    rows: Vec<Pick>,
    /// How many of `rows` have been copied.
    sealed: usize,
}

#[derive(Clone, Copy)]
enum Pick {
    None,
    Open(usize, usize),
    Chunk(usize, usize),
}

impl Picks {
    fn pick(&mut self, batch: usize, row: usize) {
        let rows = self.open.entry(batch).or_default();
        // Neighbours often pick the same row.
        if rows.last() != Some(&(row as u64)) {
            rows.push(row as u64);
        }
        self.rows.push(Pick::Open(batch, rows.len() - 1));
    }

    /// Copies what was picked from open batches.
    fn seal(&mut self, right: &Right) -> Result<()> {
        let mut chunk_of_batch = HashMap::new();
        for (number, rows) in self.open.drain() {
            let batch = right.open(number);
            let batch = batch.ok_or_else(|| Error::internal("an as-of match was left behind"))?;
            chunk_of_batch.insert(number, self.chunks.len());
            self.chunks.push(copied(batch, rows)?);
        }
        for pick in &mut self.rows[self.sealed..] {
            if let Pick::Open(batch, row) = *pick {
                let chunk = chunk_of_batch.get(&batch).copied();
                let chunk =
                    chunk.ok_or_else(|| Error::internal("an as-of match was left behind"))?;
                *pick = Pick::Chunk(chunk, row);
            }
        }
        self.sealed = self.rows.len();
        Ok(())
    }

    /// The picked rows as columns; nulls where there is none.
    fn columns(&self, schema: &SchemaRef) -> Result<Vec<ArrayRef>> {
        let places: Vec<(usize, usize)> = self
            .rows
            .iter()
            .map(|pick| match *pick {
                Pick::Chunk(chunk, row) => (chunk + 1, row),
                Pick::None | Pick::Open(..) => (0, 0),
            })
            .collect();
        let column = |(position, field): (usize, &arrow::datatypes::FieldRef)| {
            let none = new_null_array(field.data_type(), 1);
            let chunks = self
                .chunks
                .iter()
                .map(|chunk| chunk.column(position).as_ref());
            let parts: Vec<&dyn Array> = [none.as_ref()].into_iter().chain(chunks).collect();
            Ok(interleave(&parts, &places)?)
        };
        schema.fields().iter().enumerate().map(column).collect()
    }
}

impl Merge {
    pub(crate) fn try_new(
        left: SendableRecordBatchStream,
        left_side: Side,
        right: Right,
        right_schema: SchemaRef,
        operator: AsofOperator,
        schema: SchemaRef,
    ) -> Result<Self> {
        let converters = Converters::try_new(&left_side, &left.schema())?;
        Ok(Self {
            left,
            left_side,
            right,
            converters,
            operator,
            schema,
            right_schema,
        })
    }

    /// The next output batch: a left batch with its matches.
    pub(crate) async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Some(batch) = self.left.next().await.transpose()? else {
            return Ok(None);
        };
        let sorted = self.converters.convert(&self.left_side, &batch)?;
        let mut picks = Picks::default();
        for row in 0..batch.num_rows() {
            if !sorted.can_match(row) {
                picks.rows.push(Pick::None);
                continue;
            }
            let (key, time) = (sorted.key(row), sorted.time(row));
            while self
                .right
                .settle(&self.converters, |right| picks.seal(right))
                .await?
            {
                match self.right.compare(key, time) {
                    Some((Ordering::Less, _)) => self.right.skip(),
                    Some((Ordering::Equal, order)) if self.operator.admits(order) => {
                        self.right.offer()?;
                    }
                    _ => break,
                }
            }
            match self
                .right
                .candidate()
                .filter(|candidate| candidate.has_key(key))
            {
                Some(candidate) => picks.pick(candidate.batch, candidate.row),
                None => picks.rows.push(Pick::None),
            }
        }
        picks.seal(&self.right)?;
        let mut columns = batch.columns().to_vec();
        columns.append(&mut picks.columns(&self.right_schema)?);
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let schema = Arc::clone(&self.schema);
        Ok(Some(RecordBatch::try_new_with_options(
            schema, columns, &options,
        )?))
    }
}
