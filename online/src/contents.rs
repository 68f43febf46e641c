//! What a request held, as a digest: it tells a repeat of an idempotency key from another request
//! under the same key.
//!
//! Rows count by their values, in their order, however they are divided into batches: they are
//! hashed in the form of Arrow's row format, which is the same for equal values of one type.

use std::fmt::Write as _;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, SortField};
use featureflight_catalog::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Of the form that is hashed: digests of different forms tell nothing.
const FORM: &str = "1:";

/// SHA-256, in hexadecimal, behind the form that was hashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents(String);

impl Contents {
    /// Whether this is the same as `other`; `None` where that cannot be said.
    pub(crate) fn same(&self, other: &Self) -> Option<bool> {
        let known = self.0.starts_with(FORM) && other.0.starts_with(FORM);
        known.then(|| self == other)
    }
}

/// Takes a request's parts in their order.
#[derive(Debug)]
pub struct Digester {
    hasher: Sha256,
    /// The rows that are written are part of what was asked for.
    of_rows: bool,
    converter: Option<RowConverter>,
}

impl Digester {
    /// Of a statement, which says all there is to say: the rows it makes may be others when it is
    /// repeated.
    pub fn of_statement(sql: &str) -> Self {
        Self::new(sql, false)
    }

    /// Of the rows that are written, and of the statement they are bound to if there is one.
    pub fn of_rows(sql: &str) -> Self {
        Self::new(sql, true)
    }

    fn new(sql: &str, of_rows: bool) -> Self {
        let mut digester = Self {
            hasher: Sha256::new(),
            of_rows,
            converter: None,
        };
        digester.text(sql);
        digester
    }

    pub(crate) fn is_of_rows(&self) -> bool {
        self.of_rows
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// With their length, so that no two sequences look alike.
    fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    /// Names and types of the columns of what follows.
    ///
    /// # Errors
    /// `InvalidArgument` for a type whose values cannot be told apart.
    pub(crate) fn columns(&mut self, schema: &Schema) -> Result<()> {
        for field in schema.fields() {
            self.text(field.name());
        }
        self.types(schema.fields().iter().map(|field| field.data_type()))
    }

    fn types<'a>(
        &mut self,
        types: impl Iterator<Item = &'a arrow::datatypes::DataType>,
    ) -> Result<()> {
        let mut fields = Vec::new();
        for data_type in types {
            self.text(&data_type.to_string());
            fields.push(SortField::new(data_type.clone()));
        }
        let converter = RowConverter::new(fields).map_err(indistinct)?;
        self.converter = Some(converter);
        Ok(())
    }

    /// # Errors
    /// `InvalidArgument` when they are of other types than [`Self::columns`] said.
    pub(crate) fn rows(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(converter) = &self.converter else {
            return Err(Error::internal("rows came before their columns"));
        };
        let rows = converter
            .convert_columns(batch.columns())
            .map_err(indistinct)?;
        for row in &rows {
            let row: &[u8] = row.as_ref();
            self.hasher.update((row.len() as u64).to_le_bytes());
            self.hasher.update(row);
        }
        Ok(())
    }

    /// Values bound to a statement: arrays of one value each.
    ///
    /// # Errors
    /// As [`Self::columns`].
    pub fn values(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.types(values.iter().map(|value| value.data_type()))?;
        let batch = RecordBatch::try_from_iter(
            values
                .iter()
                .enumerate()
                .map(|(at, value)| (at.to_string(), value.clone())),
        );
        self.rows(&batch.map_err(indistinct)?)
    }

    pub(crate) fn finish(self) -> Contents {
        let mut text = FORM.to_owned();
        for byte in self.hasher.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Contents(text)
    }
}

fn indistinct(error: arrow::error::ArrowError) -> Error {
    Error::invalid("values of this type cannot be written under an idempotency key")
        .with_source(error)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int64Array, StringArray};

    use super::*;

    fn batch(names: &[Option<&str>], scores: &[f64]) -> RecordBatch {
        let columns: [(&str, ArrayRef); 2] = [
            ("name", Arc::new(StringArray::from(names.to_vec()))),
            ("score", Arc::new(Float64Array::from(scores.to_vec()))),
        ];
        RecordBatch::try_from_iter(columns).expect("a batch")
    }

    fn digest(sql: &str, batches: &[RecordBatch]) -> Contents {
        let mut digester = Digester::of_rows(sql);
        digester.columns(&batches[0].schema()).expect("types");
        for batch in batches {
            digester.rows(batch).expect("rows");
        }
        digester.finish()
    }

    #[test]
    fn rows_count_and_batches_do_not() {
        let whole = batch(&[Some("a"), None, Some("")], &[1.0, 2.0, f64::NAN]);
        let parts = [whole.slice(0, 1), whole.slice(1, 0), whole.slice(1, 2)];
        let first = digest("", std::slice::from_ref(&whole));
        assert_eq!(digest("", &parts), first);
        for other in [
            batch(&[Some("a"), None, Some("")], &[1.0, 2.5, f64::NAN]),
            batch(&[Some("a"), Some(""), None], &[1.0, 2.0, f64::NAN]),
            batch(&[Some("a"), None], &[1.0, 2.0]),
            batch(&[None, Some("a"), Some("")], &[2.0, 1.0, f64::NAN]),
        ] {
            assert_eq!(first.same(&digest("", &[other])), Some(false));
        }
        assert_eq!(first.same(&digest("x", &[whole])), Some(false));
    }

    #[test]
    fn values_of_a_statement_count() {
        let of = |sql: &str, values: &[ArrayRef]| {
            let mut digester = Digester::of_statement(sql);
            digester.values(values).expect("values");
            digester.finish()
        };
        let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let two: ArrayRef = Arc::new(Int64Array::from(vec![2]));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["1"]));
        let first = of("s", std::slice::from_ref(&one));
        assert_eq!(first, of("s", std::slice::from_ref(&one)));
        for other in [
            of("s", &[two]),
            of("s", &[text]),
            of("s", &[]),
            of("t", &[one]),
        ] {
            assert_ne!(first, other);
        }
    }

    /// They are stored: another value here means that [`FORM`] has to change with it.
    #[test]
    fn digests_stay_the_same_from_version_to_version() {
        let rows = batch(
            &[Some("a"), None, Some("größer")],
            &[-0.0, 1.5, f64::INFINITY],
        );
        let expected = "1:4ec6d5bb437d1ee850bd9f0429362ca031fcc31027df3db419b637e8da1de208";
        assert_eq!(digest("INSERT", &[rows]).0, expected);
        let other = Contents("2:00".to_owned());
        assert_eq!(other.same(&Contents("1:00".to_owned())), None);
    }
}
