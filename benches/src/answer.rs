//! What a Parquet file answers: rows, values of one column, and a checksum that is the same in
//! whatever order the rows lie.

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use arrow::array::Array;
use arrow::row::{RowConverter, SortField};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

use crate::Result;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    pub(crate) file: PathBuf,
    /// A column whose values are counted.
    #[arg(long)]
    pub(crate) matched: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value> {
    Ok(Answer::of(&arguments.file, arguments.matched.as_deref())?.json())
}

/// See the module. Two files compare equal when they hold the same rows, as a multiset, in columns
/// of the same types in the same order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) rows: usize,
    /// Values of the wanted column that are not null.
    pub(crate) matched: Option<usize>,
    pub(crate) checksum: u64,
}

impl Answer {
    pub(crate) fn of(path: &Path, matched: Option<&str>) -> Result<Self> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
        let schema = reader.schema();
        let wanted = matched.map(|name| schema.index_of(name)).transpose()?;
        let fields = schema.fields().iter();
        let converter = RowConverter::new(
            fields
                .map(|field| SortField::new(field.data_type().clone()))
                .collect(),
        )?;
        let mut answer = Self {
            rows: 0,
            matched: wanted.map(|_| 0),
            checksum: 0,
        };
        for batch in reader.build()? {
            let batch = batch?;
            answer.rows += batch.num_rows();
            if let (Some(column), Some(matched)) = (wanted, &mut answer.matched) {
                let column = batch.column(column);
                *matched += column.len() - column.null_count();
            }
            for row in &converter.convert_columns(batch.columns())? {
                let mut hasher = DefaultHasher::new();
                hasher.write(row.as_ref());
                answer.checksum = answer.checksum.wrapping_add(hasher.finish());
            }
        }
        Ok(answer)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "rows": self.rows,
            "matched": self.matched,
            "checksum": format!("{:016x}", self.checksum),
        })
    }
}
