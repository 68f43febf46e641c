//! Decodes one data file into record batches: fetches what a row group needs, then decodes it, and
//! holds the file to the row counts of its footer.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{ByteViewType, StringViewType};
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReader, RowSelection};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};

use crate::error::{Error, Result};

use super::fetch::Object;
use super::footer::{Footer, Piece};
use super::prune::LeftOut;

/// Rows per batch.
pub(crate) const BATCH_ROWS: usize = 8_192;

/// Runs a step of the decoder. Its errors, and the panics that some damaged files lead it into,
/// are the object's fault.
pub(crate) fn guarded<T, E: std::fmt::Display>(
    object: &Object,
    step: impl FnOnce() -> Result<T, E>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(object.corrupt(error)),
        Err(_) => Err(object.corrupt("it is damaged in a way the decoder cannot name")),
    }
}

/// Consecutive rows of a file.
pub(crate) struct Rows {
    /// Position in the file of row 0; without a selection.
    pub(crate) first_row: u64,
    pub(crate) len: usize,
    /// The projected root columns, in file order.
    pub(crate) columns: Vec<ArrayRef>,
    /// Per column its INT96 values as wrapping nanoseconds, if they may not be whole microseconds.
    pub(crate) nanos: Vec<Option<ArrayRef>>,
}

/// A file being read.
pub(crate) struct FileScan {
    source: Source,
    selection: Option<RowSelection>,
    left_out: Option<LeftOut>,
    next_group: usize,
    next_row: u64,
    group: Option<Group>,
}

/// What row groups are read from.
struct Source {
    object: Object,
    footer: Arc<Footer>,
    /// Root columns to decode, ascending.
    roots: Vec<usize>,
    /// What came with the footer.
    tail: Option<Piece>,
    /// Bytes fetched beyond that.
    fetched: AtomicU64,
}

/// A row group in memory.
struct Group {
    /// Absent when no column is decoded: then only rows are counted.
    reader: Option<ParquetRecordBatchReader>,
    /// The INT96 columns once more, exactly, and their places among the decoded columns.
    nanos: Option<(ParquetRecordBatchReader, Vec<usize>)>,
    next_row: u64,
    rows_left: u64,
}

impl FileScan {
    /// `roots` are the root columns to decode, ascending. A selection counts the rows of the whole
    /// file.
    pub(crate) fn new(
        object: Object,
        footer: Arc<Footer>,
        tail: Option<Piece>,
        roots: Vec<usize>,
        selection: Option<RowSelection>,
    ) -> Self {
        let source = Source {
            object,
            footer,
            roots,
            tail,
            fetched: AtomicU64::new(0),
        };
        Self {
            source,
            selection,
            left_out: None,
            next_group: 0,
            next_row: 0,
            group: None,
        }
    }

    /// Leaves out row groups; the positions of the other rows stay.
    pub(crate) fn leave_out(&mut self, groups: LeftOut) {
        self.left_out = Some(groups);
    }

    pub(crate) fn object(&self) -> &Object {
        &self.source.object
    }

    /// Bytes fetched so far: at first those in memory.
    pub(crate) fn held(&self) -> u64 {
        let tail = self.source.tail.as_ref();
        let tail = tail.map_or(0, |tail| tail.bytes.len() as u64);
        tail + self.source.fetched.load(Ordering::Relaxed)
    }

    /// Fetches the next row group with wanted rows, unless one is in memory. Only this waits for
    /// the store.
    pub(crate) async fn load(&mut self) -> Result<()> {
        let Self {
            source,
            selection,
            left_out,
            next_group,
            next_row,
            group,
        } = self;
        let metadata = Arc::clone(source.footer.reader.metadata());
        while group.is_none() && *next_group < metadata.num_row_groups() {
            let index = *next_group;
            let rows = usize::try_from(metadata.row_group(index).num_rows())
                .map_err(|_| source.object.corrupt("a row group has too many rows"))?;
            let selected = selection
                .as_mut()
                .map(|selection| selection.split_off(rows));
            let wanted = selected.as_ref().map_or(rows, RowSelection::row_count);
            let first_row = *next_row;
            let left_out = left_out
                .as_ref()
                .is_some_and(|groups| groups.contains(index));
            if wanted > 0 && !left_out {
                *group = Some(
                    source
                        .group(index, selected, first_row, wanted as u64)
                        .await?,
                );
            }
            *next_group += 1;
            *next_row += rows as u64;
        }
        if group.is_none() {
            source.tail = None;
            if selection.as_ref().is_some_and(RowSelection::selects_any) {
                return Err(Error::internal(format!(
                    "rows past the end of {} were selected",
                    source.object.name()
                )));
            }
        }
        Ok(())
    }

    /// The next rows, fetching when needed.
    pub(crate) async fn next(&mut self) -> Result<Option<Rows>> {
        loop {
            self.load().await?;
            let Some(group) = &mut self.group else {
                return Ok(None);
            };
            if group.rows_left > 0 {
                let rows = group.decode(&self.source.object)?;
                self.source.check_text(&rows.columns)?;
                return Ok(Some(rows));
            }
            group.check_end(&self.source.object)?;
            self.group = None;
        }
    }
}

impl Source {
    async fn group(
        &self,
        index: usize,
        selection: Option<RowSelection>,
        next_row: u64,
        rows_left: u64,
    ) -> Result<Group> {
        if self.roots.is_empty() {
            return Ok(Group {
                reader: None,
                nanos: None,
                next_row,
                rows_left,
            });
        }
        let nanos = self.nanos_reader(index, selection.clone()).await?;
        let reader = self
            .reader(&self.footer.reader, index, self.roots.clone(), selection)
            .await?;
        Ok(Group {
            reader: Some(reader),
            nanos,
            next_row,
            rows_left,
        })
    }

    async fn nanos_reader(
        &self,
        group: usize,
        selection: Option<RowSelection>,
    ) -> Result<Option<(ParquetRecordBatchReader, Vec<usize>)>> {
        let Some(metadata) = &self.footer.nanos else {
            return Ok(None);
        };
        let (places, roots): (Vec<usize>, Vec<usize>) = self
            .roots
            .iter()
            .enumerate()
            .filter(|&(_, &root)| self.footer.is_int96(root))
            .unzip();
        if roots.is_empty() {
            return Ok(None);
        }
        Ok(Some((
            self.reader(metadata, group, roots, selection).await?,
            places,
        )))
    }

    async fn reader(
        &self,
        metadata: &ArrowReaderMetadata,
        group: usize,
        roots: Vec<usize>,
        selection: Option<RowSelection>,
    ) -> Result<ParquetRecordBatchReader> {
        let mut decoder: ParquetPushDecoder = guarded(&self.object, || {
            let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
            let mut builder = ParquetPushDecoderBuilder::new_with_metadata(metadata.clone())
                .with_row_groups(vec![group])
                .with_projection(mask)
                .with_batch_size(BATCH_ROWS);
            if let Some(selection) = selection {
                builder = builder.with_row_selection(selection);
            }
            builder.build()
        })?;
        loop {
            match guarded(&self.object, || decoder.try_next_reader())? {
                DecodeResult::Data(reader) => return Ok(reader),
                DecodeResult::NeedsData(ranges) => {
                    let bytes = self.bytes(&ranges).await?;
                    guarded(&self.object, || decoder.push_ranges(ranges, bytes))?;
                }
                DecodeResult::Finished => return Err(miscounted(&self.object)),
            }
        }
    }

    /// From what came with the footer, else from the store.
    async fn bytes(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let in_tail = |range| self.tail.as_ref().and_then(|tail| tail.get(range));
        let held: Vec<Option<Bytes>> = ranges.iter().map(in_tail).collect();
        let missing = ranges.iter().zip(&held).filter(|(_, held)| held.is_none());
        let missing: Vec<_> = missing.map(|(range, _)| range.clone()).collect();
        let fetched = self.object.ranges(&missing).await?;
        let length: u64 = fetched.iter().map(|bytes| bytes.len() as u64).sum();
        self.fetched.fetch_add(length, Ordering::Relaxed);
        let mut fetched = fetched.into_iter();
        let bytes = held.into_iter().map(|held| held.or_else(|| fetched.next()));
        Ok(bytes.flatten().collect())
    }

    /// Text the decoder took on trust.
    fn check_text(&self, columns: &[ArrayRef]) -> Result<()> {
        for (root, column) in self.roots.iter().zip(columns) {
            if self.footer.unchecked_text.contains(root)
                && let Some(text) = column.as_string_view_opt()
            {
                StringViewType::validate(text.views(), text.data_buffers())
                    .map_err(|_| self.object.corrupt("text is not UTF-8"))?;
            }
        }
        Ok(())
    }
}

impl Group {
    fn decode(&mut self, object: &Object) -> Result<Rows> {
        let (rows, columns, nanos) = match &mut self.reader {
            None => {
                let rows = usize::try_from(self.rows_left)
                    .unwrap_or(usize::MAX)
                    .min(BATCH_ROWS);
                (rows, Vec::new(), Vec::new())
            }
            Some(reader) => {
                let batch = guarded(object, || reader.next().transpose())?;
                let batch = batch.ok_or_else(|| miscounted(object))?;
                let rows = batch.num_rows();
                if rows == 0 || rows as u64 > self.rows_left {
                    return Err(miscounted(object));
                }
                let mut nanos = vec![None; batch.num_columns()];
                if let Some((reader, places)) = &mut self.nanos {
                    let exact = guarded(object, || reader.next().transpose())?
                        .filter(|exact| exact.num_rows() == rows)
                        .ok_or_else(|| miscounted(object))?;
                    for (place, column) in places.iter().zip(exact.columns()) {
                        nanos[*place] = Some(Arc::clone(column));
                    }
                }
                (rows, batch.columns().to_vec(), nanos)
            }
        };
        let first_row = self.next_row;
        self.next_row += rows as u64;
        self.rows_left -= rows as u64;
        Ok(Rows {
            first_row,
            len: rows,
            columns,
            nanos,
        })
    }

    /// Rows beyond those the footer promises.
    fn check_end(&mut self, object: &Object) -> Result<()> {
        match &mut self.reader {
            Some(reader) => match guarded(object, || reader.next().transpose())? {
                None => Ok(()),
                Some(_) => Err(miscounted(object)),
            },
            None => Ok(()),
        }
    }
}

fn miscounted(object: &Object) -> Error {
    object.corrupt("a row group does not hold as many rows as the footer says")
}
