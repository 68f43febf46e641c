//! Writes batches into a Snappy Parquet file, columns shared out among as many tasks as there are
//! threads: the peers write with all their threads too.
//!
//! No thread of its own: encoding runs on the workers that also compute the batches.

use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::Result;

/// Rows of a row group, as `ArrowWriter` has them by default.
const ROW_GROUP: usize = 1 << 20;

/// Batches an encoder may lag behind.
const AHEAD: usize = 2;

/// A file being written. Columns of nested types are refused.
pub(crate) struct ParquetSink {
    file: SerializedFileWriter<File>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    encoders: Vec<Encoder>,
    tasks: usize,
    rows: usize,
}

/// Encodes some columns of one row group.
struct Encoder {
    batches: mpsc::Sender<RecordBatch>,
    task: JoinHandle<Result<Vec<(usize, ArrowColumnChunk)>>>,
}

impl ParquetSink {
    pub(crate) fn create(path: &Path, schema: &SchemaRef, tasks: usize) -> Result<Self> {
        let nested = schema.fields().iter().find(|f| f.data_type().is_nested());
        if let Some(field) = nested {
            return Err(format!("column {} is nested", field.name()).into());
        }
        let mut properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
        for field in schema
            .fields()
            .iter()
            .filter(|f| f.data_type().is_floating())
        {
            // Few doubles are alike: a dictionary would be built and thrown away.
            let column = ColumnPath::new(vec![field.name().clone()]);
            properties = properties.set_column_dictionary_enabled(column, false);
        }
        let file = File::create(path)?;
        let schema_of_file = SchemaRef::clone(schema);
        let writer = ArrowWriter::try_new(file, schema_of_file, Some(properties.build()))?;
        let (file, factory) = writer.into_serialized_writer()?;
        Ok(Self {
            file,
            factory,
            schema: SchemaRef::clone(schema),
            encoders: Vec::new(),
            tasks,
            rows: 0,
        })
    }

    pub(crate) async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if self.encoders.is_empty() {
            self.start_row_group()?;
        }
        self.rows += batch.num_rows();
        for encoder in &self.encoders {
            // An encoder that is gone has failed, and says why when its row group ends.
            let _ = encoder.batches.send(batch.clone()).await;
        }
        if self.rows >= ROW_GROUP {
            self.end_row_group().await?;
        }
        Ok(())
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        self.end_row_group().await?;
        self.file.close()?;
        Ok(())
    }

    fn start_row_group(&mut self) -> Result<()> {
        let number = self.file.flushed_row_groups().len();
        let writers = self.factory.create_column_writers(number)?;
        let mut shares: Vec<Vec<_>> = (0..self.tasks).map(|_| Vec::new()).collect();
        for (column, writer) in writers.into_iter().enumerate() {
            shares[column % self.tasks].push((column, writer));
        }
        for share in shares {
            let (batches, receiver) = mpsc::channel(AHEAD);
            let task = tokio::spawn(encode(SchemaRef::clone(&self.schema), share, receiver));
            self.encoders.push(Encoder { batches, task });
        }
        Ok(())
    }

    async fn end_row_group(&mut self) -> Result<()> {
        let mut chunks = Vec::new();
        for Encoder { batches, task } in self.encoders.drain(..) {
            drop(batches);
            chunks.extend(task.await??);
        }
        if chunks.is_empty() {
            return Ok(());
        }
        chunks.sort_by_key(|(column, _)| *column);
        let mut row_group = self.file.next_row_group()?;
        for (_, chunk) in chunks {
            chunk.append_to_row_group(&mut row_group)?;
        }
        row_group.close()?;
        self.rows = 0;
        Ok(())
    }
}

async fn encode(
    schema: SchemaRef,
    mut columns: Vec<(usize, ArrowColumnWriter)>,
    mut batches: mpsc::Receiver<RecordBatch>,
) -> Result<Vec<(usize, ArrowColumnChunk)>> {
    while let Some(batch) = batches.recv().await {
        for (column, writer) in &mut columns {
            for leaf in compute_leaves(schema.field(*column), batch.column(*column))? {
                writer.write(&leaf)?;
            }
        }
    }
    let chunks = columns
        .into_iter()
        .map(|(column, writer)| Ok((column, writer.close()?)));
    chunks.collect()
}
