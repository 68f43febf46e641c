//! The commands that start with `\`.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::IpcMessage;
use arrow_flight::sql::{CommandGetPrimaryKeys, CommandGetTables};
use datafusion_cli::print_options::MaxRows;
use futures::{StreamExt, TryStreamExt, stream};

use crate::args::Format;
use crate::connection::{Connection, Rows};
use crate::error::CliError;
use crate::shell::Shell;

const HELP: &str = "\
Statements end with ; and may span lines. Ctrl-C cancels, Ctrl-D leaves.

  \\d             relations
  \\d NAME        columns of a relation, in every schema that has it (or SCHEMA.NAME)
  \\i FILE        run the statements of a file
  \\format NAME   table, csv, tsv, json or ndjson
  \\maxrows N     rows a table prints at most, or `none`
  \\timing        row counts and times on or off
  \\c             connect again, as a new session
  \\? or help     this text
  \\q             leave
";

/// A command, parsed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Command {
    Help,
    Quit,
    Tables,
    Describe(RelationName),
    Include(PathBuf),
    Format(Format),
    MaxRows(MaxRows),
    Timing,
    Connect,
}

impl FromStr for Command {
    type Err = CliError;

    /// `line` is without its `\`.
    fn from_str(line: &str) -> Result<Self, CliError> {
        let (name, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        let usage = |text: String| CliError::Usage(text);
        match (name, argument) {
            ("?" | "h" | "help", _) => Ok(Self::Help),
            ("q" | "quit", "") => Ok(Self::Quit),
            ("d", "") => Ok(Self::Tables),
            ("d", name) => name.parse().map(Self::Describe),
            ("i", "") => Err(usage("\\i needs a file".to_owned())),
            ("i", file) => Ok(Self::Include(file.into())),
            ("format", format) => <Format as clap::ValueEnum>::from_str(format, true)
                .map(Self::Format)
                .map_err(|_| usage("\\format takes table, csv, tsv, json or ndjson".to_owned())),
            ("maxrows", rows) => rows
                .parse()
                .map(Self::MaxRows)
                .map_err(|_| usage("\\maxrows takes a number or `none`".to_owned())),
            ("timing", "") => Ok(Self::Timing),
            ("c", "") => Ok(Self::Connect),
            _ => Err(usage(format!("\\{line} is not a command; \\? lists them"))),
        }
    }
}

/// A relation as typed: `[schema.]name`, each part quoted or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RelationName {
    schema: Option<Part>,
    name: Part,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    text: String,
    quoted: bool,
}

impl Part {
    /// Quoted parts match exactly; others ignore case, and an underscore stands for a hyphen too.
    fn matches(&self, actual: &str) -> bool {
        let plain = |text: &str| text.to_lowercase().replace('-', "_");
        if self.quoted {
            self.text == actual
        } else {
            plain(&self.text) == plain(actual)
        }
    }
}

impl FromStr for RelationName {
    type Err = CliError;

    fn from_str(text: &str) -> Result<Self, CliError> {
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let (part, after) = part(rest)
                .ok_or_else(|| CliError::Usage(format!("`{text}` is not a relation's name")))?;
            parts.push(part);
            match after.strip_prefix('.') {
                Some(next) => rest = next,
                None if after.is_empty() => break,
                None => {
                    return Err(CliError::Usage(format!(
                        "`{text}` is not a relation's name"
                    )));
                }
            }
        }
        let name = parts.pop();
        match (name, parts.pop()) {
            // A catalog before the schema says nothing: there is one.
            (Some(name), schema) if parts.len() < 2 => Ok(Self { schema, name }),
            _ => Err(CliError::Usage(format!("`{text}` has too many parts"))),
        }
    }
}

/// The first part of a dotted name, and what follows it.
fn part(text: &str) -> Option<(Part, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find('.').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        let plain = !name.is_empty() && !name.contains(['"', ' ', '\'']);
        return plain.then(|| {
            (
                Part {
                    text: name.to_owned(),
                    quoted: false,
                },
                rest,
            )
        });
    };
    let mut name = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        name.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                name.push('"');
                rest = next;
            }
            None => {
                return Some((
                    Part {
                        text: name,
                        quoted: true,
                    },
                    after,
                ));
            }
        }
    }
}

pub(crate) fn help() -> Result<(), CliError> {
    Ok(std::io::stdout().write_all(HELP.as_bytes())?)
}

/// A relation as `GetTables` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Relation {
    catalog: Option<String>,
    schema: String,
    name: String,
    kind: String,
}

/// Every relation: schema, name, type.
pub(crate) async fn tables(connection: &mut Connection) -> Result<Rows, CliError> {
    let all = relations(connection).await?;
    let column = |text: fn(&Relation) -> &str| all.iter().map(text).map(Some).collect();
    text_rows(
        &["schema", "name", "type"],
        vec![
            column(|r| &r.schema),
            column(|r| &r.name),
            column(|r| &r.kind),
        ],
    )
}

/// The names of all relations, for completion.
pub(crate) async fn names(connection: &mut Connection) -> Result<Vec<String>, CliError> {
    let mut names: Vec<_> = relations(connection)
        .await?
        .into_iter()
        .flat_map(|r| [format!("{}.{}", r.schema, r.name), r.name, r.schema])
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Prints the columns of every relation that `name` may mean.
pub(crate) async fn describe(shell: &mut Shell, name: &RelationName) -> Result<(), CliError> {
    let mut found = relations(&mut shell.connection).await?;
    found.retain(|relation| {
        name.name.matches(&relation.name)
            && name
                .schema
                .as_ref()
                .is_none_or(|schema| schema.matches(&relation.schema))
    });
    if found.is_empty() {
        return Err(CliError::Usage(
            "no such relation; \\d lists them".to_owned(),
        ));
    }
    for relation in found {
        let started = Instant::now();
        let columns = columns(&mut shell.connection, &relation).await?;
        if shell.printer.format == Format::Table {
            println!("{}.{} ({})", relation.schema, relation.name, relation.kind);
        }
        shell.printer.show(columns, started).await?;
    }
    Ok(())
}

async fn relations(connection: &mut Connection) -> Result<Vec<Relation>, CliError> {
    let info = connection
        .client()
        .get_tables(CommandGetTables::default())
        .await?;
    let mut rows = connection.fetch(info).await?;
    let mut relations = Vec::new();
    while let Some(batch) = rows.batches.try_next().await? {
        for row in 0..batch.num_rows() {
            relations.push(Relation {
                catalog: text(&batch, "catalog_name", row)?,
                schema: text(&batch, "db_schema_name", row)?.unwrap_or_default(),
                name: text(&batch, "table_name", row)?.unwrap_or_default(),
                kind: text(&batch, "table_type", row)?.unwrap_or_default(),
            });
        }
    }
    Ok(relations)
}

/// Column, type, nullable, key, remarks.
async fn columns(connection: &mut Connection, relation: &Relation) -> Result<Rows, CliError> {
    let schema = table_schema(connection, relation).await?;
    let keys = primary_key(connection, relation).await?;
    let fields = schema.fields();
    let names = fields.iter().map(|f| Some(f.name().as_str())).collect();
    let types: Vec<_> = fields.iter().map(|f| type_name(f)).collect();
    let nullable = fields
        .iter()
        .map(|f| Some(if f.is_nullable() { "yes" } else { "no" }))
        .collect();
    let key = fields
        .iter()
        .map(|f| keys.contains(f.name()).then_some("primary").or(Some("")))
        .collect();
    let remarks = fields
        .iter()
        .map(|f| {
            f.metadata()
                .get("ARROW:FLIGHT:SQL:REMARKS")
                .map(String::as_str)
                .or(Some(""))
        })
        .collect();
    let types = types.iter().map(|name| Some(name.as_str())).collect();
    text_rows(
        &["column", "type", "nullable", "key", "remarks"],
        vec![names, types, nullable, key, remarks],
    )
}

/// The server's name for a column's type, else Arrow's.
fn type_name(field: &Field) -> String {
    let named = field.metadata().get("ARROW:FLIGHT:SQL:TYPE_NAME").cloned();
    named.unwrap_or_else(|| field.data_type().to_string())
}

async fn table_schema(
    connection: &mut Connection,
    relation: &Relation,
) -> Result<Schema, CliError> {
    let request = CommandGetTables {
        catalog: relation.catalog.clone(),
        db_schema_filter_pattern: Some(relation.schema.clone()),
        table_name_filter_pattern: Some(relation.name.clone()),
        include_schema: true,
        ..CommandGetTables::default()
    };
    let info = connection.client().get_tables(request).await?;
    let mut rows = connection.fetch(info).await?;
    while let Some(batch) = rows.batches.try_next().await? {
        let schemas = batch
            .column_by_name("table_schema")
            .and_then(|column| column.as_any().downcast_ref::<BinaryArray>())
            .ok_or_else(|| CliError::Protocol("tables without their schemas".to_owned()))?;
        for row in 0..batch.num_rows() {
            // The filters are patterns, in which an underscore matches any character.
            let same = text(&batch, "table_name", row)?.as_deref() == Some(&relation.name)
                && text(&batch, "db_schema_name", row)?.as_deref() == Some(&relation.schema);
            if same {
                let message = IpcMessage(schemas.value(row).to_vec().into());
                return Schema::try_from(message)
                    .map_err(|error| CliError::Protocol(format!("a table's schema: {error}")));
            }
        }
    }
    Err(CliError::Usage(
        "the relation is gone; \\d lists what there is".to_owned(),
    ))
}

async fn primary_key(
    connection: &mut Connection,
    relation: &Relation,
) -> Result<HashSet<String>, CliError> {
    let request = CommandGetPrimaryKeys {
        catalog: relation.catalog.clone(),
        db_schema: Some(relation.schema.clone()),
        table: relation.name.clone(),
    };
    let info = connection.client().get_primary_keys(request).await?;
    let mut rows = connection.fetch(info).await?;
    let mut keys = HashSet::new();
    while let Some(batch) = rows.batches.try_next().await? {
        for row in 0..batch.num_rows() {
            keys.extend(text(&batch, "column_name", row)?);
        }
    }
    Ok(keys)
}

/// A text value of one of Flight SQL's own result sets.
fn text(batch: &RecordBatch, column: &str, row: usize) -> Result<Option<String>, CliError> {
    let values = batch
        .column_by_name(column)
        .and_then(|values| values.as_string_opt::<i32>())
        .ok_or_else(|| CliError::Protocol(format!("metadata without a text column `{column}`")))?;
    Ok((!values.is_null(row)).then(|| values.value(row).to_owned()))
}

/// A result made here.
fn text_rows(names: &[&str], columns: Vec<Vec<Option<&str>>>) -> Result<Rows, CliError> {
    let fields: Vec<_> = names
        .iter()
        .map(|name| Field::new(*name, DataType::Utf8, true))
        .collect();
    let schema: SchemaRef = Arc::new(Schema::new(fields));
    let arrays = columns
        .into_iter()
        .map(|column| Arc::new(StringArray::from(column)) as ArrayRef)
        .collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays)?;
    Ok(Rows {
        schema,
        batches: stream::iter([Ok(batch)]).boxed(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_parse() {
        let parse = |text: &str| text.parse::<Command>();
        assert_eq!(parse("q").unwrap(), Command::Quit);
        assert_eq!(parse("?").unwrap(), Command::Help);
        assert_eq!(parse("d").unwrap(), Command::Tables);
        assert_eq!(parse("format CSV").unwrap(), Command::Format(Format::Csv));
        assert_eq!(
            parse("maxrows none").unwrap(),
            Command::MaxRows(MaxRows::Unlimited)
        );
        assert_eq!(
            parse("maxrows 7").unwrap(),
            Command::MaxRows(MaxRows::Limited(7))
        );
        for bad in [
            "",
            "x",
            "q now",
            "format xml",
            "maxrows -1",
            "i",
            "d a.b.c.d",
            "d \"a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn relation_names_match_as_they_do_in_sql() {
        let name = |text: &str| text.parse::<RelationName>().unwrap();
        assert!(name("Card_Risk").name.matches("card-risk"));
        assert!(name("\"card-risk\"").name.matches("card-risk"));
        assert!(!name("\"card_risk\"").name.matches("card-risk"));
        let dotted = name("features.\"a.\"\"b\"");
        assert_eq!(dotted.name.text, "a.\"b");
        assert!(
            dotted
                .schema
                .is_some_and(|schema| schema.matches("FEATURES"))
        );
        assert_eq!(
            name("featureflight.features.x").schema,
            name("features.x").schema
        );
    }
}
