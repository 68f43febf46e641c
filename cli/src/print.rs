//! Prints results. Tables are cut at a number of rows and say so; the other formats print all
//! rows, batch by batch as they arrive.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::{JsonArray, Writer, WriterBuilder};
use datafusion::config::FormatOptions;
use datafusion_cli::print_options::MaxRows;
use futures::TryStreamExt;

use crate::args::Format;
use crate::connection::Rows;
use crate::error::CliError;

/// How to print, for the whole session.
#[derive(Debug, Clone)]
pub(crate) struct Printer {
    pub(crate) format: Format,
    pub(crate) max_rows: MaxRows,
    /// Row counts and times after each result.
    pub(crate) timing: bool,
    interactive: bool,
}

/// What was printed of one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Printed {
    pub(crate) rows: usize,
    /// There are more rows than the table shows; they were not fetched.
    pub(crate) more: bool,
}

impl Printer {
    pub(crate) fn new(format: Format, max_rows: MaxRows, quiet: bool, interactive: bool) -> Self {
        Self {
            format,
            max_rows,
            timing: !quiet,
            interactive,
        }
    }

    /// Prints `rows` to standard output and, where it does not disturb a reading program, how many
    /// there were and how long they took since `started`.
    pub(crate) async fn show(&self, rows: Rows, started: Instant) -> Result<(), CliError> {
        let no_columns = rows.schema.fields().is_empty();
        let mut out = Sink::new(std::io::BufWriter::new(std::io::stdout()));
        let printed = self.print(&mut out, rows).await;
        let flushed = out.flush();
        let printed = out.blame(printed)?;
        flushed?;
        self.footer(printed, no_columns, started.elapsed())
    }

    fn footer(&self, printed: Printed, no_columns: bool, took: Duration) -> Result<(), CliError> {
        if printed.more {
            let rows = plural(printed.rows);
            self.note(&format!(
                "First {rows}; there are more (--max-rows, \\maxrows)."
            ))?;
        }
        if !self.timing {
            return Ok(());
        }
        let seconds = took.as_secs_f64();
        match printed {
            Printed { more: true, .. } => self.note(&format!("{seconds:.3} s\n")),
            _ if no_columns => self.note(&format!("OK, {seconds:.3} s\n")),
            Printed { rows, .. } => self.note(&format!("{}, {seconds:.3} s\n", plural(rows))),
        }
    }

    /// A line about a result: beside a table, but never inside CSV or JSON.
    fn note(&self, text: &str) -> Result<(), CliError> {
        if self.format == Format::Table {
            writeln!(std::io::stdout(), "{text}")?;
        } else if self.interactive || std::io::stdout().is_terminal() {
            writeln!(std::io::stderr(), "{text}")?;
        }
        Ok(())
    }

    /// Prints `rows` to `out`, which is flushed after each batch.
    pub(crate) async fn print(
        &self,
        out: &mut (impl Write + Send),
        rows: Rows,
    ) -> Result<Printed, CliError> {
        match self.format {
            Format::Table => self.print_table(out, rows).await,
            Format::Csv | Format::Tsv | Format::Ndjson => self.print_stream(out, rows).await,
            Format::Json => print_json(out, rows).await,
        }
    }

    /// A table's widths need all its rows, so it takes no more than it may show.
    async fn print_table(
        &self,
        out: &mut (impl Write + Send),
        mut rows: Rows,
    ) -> Result<Printed, CliError> {
        let limit = match self.max_rows {
            MaxRows::Limited(limit) => limit,
            MaxRows::Unlimited => usize::MAX,
        };
        let mut kept: Vec<RecordBatch> = Vec::new();
        let mut printed = Printed {
            rows: 0,
            more: false,
        };
        while let Some(batch) = rows.batches.try_next().await? {
            let room = limit - printed.rows;
            printed.more = batch.num_rows() > room;
            let batch = if printed.more {
                batch.slice(0, room)
            } else {
                batch
            };
            printed.rows += batch.num_rows();
            kept.push(batch);
            if printed.more {
                break;
            }
        }
        self.batches(out, rows.schema, &kept, true)?;
        Ok(printed)
    }

    async fn print_stream(
        &self,
        out: &mut (impl Write + Send),
        mut rows: Rows,
    ) -> Result<Printed, CliError> {
        let mut printed = Printed {
            rows: 0,
            more: false,
        };
        while let Some(batch) = rows.batches.try_next().await? {
            if batch.num_rows() > 0 {
                let header = printed.rows == 0;
                printed.rows += batch.num_rows();
                self.batches(out, batch.schema(), &[batch], header)?;
                out.flush()?;
            }
        }
        if printed.rows == 0 && self.format != Format::Ndjson && !rows.schema.fields().is_empty() {
            self.header(out, rows.schema)?;
        }
        Ok(printed)
    }

    fn batches(
        &self,
        out: &mut impl Write,
        schema: SchemaRef,
        batches: &[RecordBatch],
        header: bool,
    ) -> Result<(), CliError> {
        let options = FormatOptions {
            null: "NULL".to_owned(),
            ..FormatOptions::default()
        };
        let format = self.format.print_format();
        format.print_batches(out, schema, batches, MaxRows::Unlimited, header, &options)?;
        Ok(())
    }

    /// The header line of a result without rows, which `PrintFormat` leaves out.
    fn header(&self, out: &mut impl Write, schema: SchemaRef) -> Result<(), CliError> {
        let delimiter = if self.format == Format::Tsv {
            b'\t'
        } else {
            b','
        };
        let mut writer = arrow::csv::WriterBuilder::new()
            .with_delimiter(delimiter)
            .build(out);
        writer.write(&RecordBatch::new_empty(schema))?;
        Ok(())
    }
}

/// One array over all batches, nulls spelled out, so that every object has every column.
async fn print_json(out: &mut (impl Write + Send), mut rows: Rows) -> Result<Printed, CliError> {
    let mut printed = Printed {
        rows: 0,
        more: false,
    };
    {
        let builder = WriterBuilder::new().with_explicit_nulls(true);
        let mut writer: Writer<_, JsonArray> = builder.build(&mut *out);
        while let Some(batch) = rows.batches.try_next().await? {
            printed.rows += batch.num_rows();
            writer.write(&batch)?;
        }
        writer.finish()?;
    }
    writeln!(out)?;
    Ok(printed)
}

fn plural(rows: usize) -> String {
    if rows == 1 {
        "1 row".to_owned()
    } else {
        format!("{rows} rows")
    }
}

/// Remembers that writing failed: the writers of Arrow flatten such errors to text, and a reader
/// that went away is no fault of the result.
struct Sink<W> {
    inner: W,
    failed: Option<std::io::ErrorKind>,
}

impl<W: Write> Sink<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            failed: None,
        }
    }

    fn note<T>(&mut self, result: std::io::Result<T>) -> std::io::Result<T> {
        if let Err(error) = &result {
            self.failed = Some(error.kind());
        }
        result
    }

    /// `result`, or the write error behind it.
    fn blame<T>(&self, result: Result<T, CliError>) -> Result<T, CliError> {
        match (result, self.failed) {
            (Err(_), Some(kind)) => Err(CliError::Output(kind.into())),
            (result, _) => result,
        }
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.inner.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.inner.flush();
        self.note(result)
    }
}

#[cfg(test)]
mod tests;
