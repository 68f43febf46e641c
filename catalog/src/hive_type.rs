//! Hive type text, as Glue stores column types (`array<struct<a:int>>`), to Arrow types.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields};

use crate::table::timestamp_type;

/// Deeper nesting is refused: the parser recurses, and a catalog is input.
const MAX_DEPTH: usize = 32;

/// The Arrow type of a Hive type. Type names match ignoring case; text is `Utf8View`, binary
/// `BinaryView`, a timestamp [`timestamp_type`]; everything nested is nullable.
///
/// # Errors
/// What is wrong with the text, as a clause.
pub fn parse_hive_type(text: &str) -> Result<DataType, String> {
    let mut parser = Parser { rest: text.trim() };
    let parsed = parser.data_type(0).and_then(|data_type| {
        if parser.rest.is_empty() {
            Ok(data_type)
        } else {
            Err(format!("unexpected '{}'", shortened(parser.rest)))
        }
    });
    parsed.map_err(|why| format!("type '{}' is not supported: {why}", shortened(text)))
}

/// Type texts of wide structs run to kilobytes; messages need only their start.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn data_type(&mut self, depth: usize) -> Result<DataType, String> {
        if depth > MAX_DEPTH {
            return Err(format!("it nests deeper than {MAX_DEPTH} levels"));
        }
        let name = self.word().to_ascii_lowercase();
        match name.as_str() {
            "boolean" => Ok(DataType::Boolean),
            "tinyint" | "byte" => Ok(DataType::Int8),
            "smallint" | "short" => Ok(DataType::Int16),
            "int" | "integer" => Ok(DataType::Int32),
            "bigint" | "long" => Ok(DataType::Int64),
            "float" | "real" => Ok(DataType::Float32),
            "double" => {
                self.word_if("precision");
                Ok(DataType::Float64)
            }
            "string" => Ok(DataType::Utf8View),
            "varchar" | "char" => {
                self.arguments(1)?;
                Ok(DataType::Utf8View)
            }
            "binary" => Ok(DataType::BinaryView),
            "date" => Ok(DataType::Date32),
            "timestamp" | "timestamptz" => {
                self.zone();
                Ok(timestamp_type())
            }
            "decimal" | "dec" | "numeric" => self.decimal(),
            "array" => {
                self.expect('<')?;
                let item = self.data_type(depth + 1)?;
                self.expect('>')?;
                Ok(DataType::new_list(item, true))
            }
            "map" => self.map(depth),
            "struct" => self.structure(depth),
            "" => Err("a type name is missing".to_owned()),
            other => Err(format!("'{}' is not a type known here", shortened(other))),
        }
    }

    /// Hive's default is `decimal(10,0)`.
    fn decimal(&mut self) -> Result<DataType, String> {
        let arguments = self.arguments(2)?;
        let precision = arguments.first().copied().unwrap_or(10);
        let scale = arguments.get(1).copied().unwrap_or(0);
        if !(1..=DECIMAL128_MAX_PRECISION).contains(&precision) || scale > precision {
            return Err(format!("decimal({precision},{scale}) is out of range"));
        }
        let scale = i8::try_from(scale).map_err(|_| "the scale is out of range".to_owned())?;
        Ok(DataType::Decimal128(precision, scale))
    }

    fn map(&mut self, depth: usize) -> Result<DataType, String> {
        self.expect('<')?;
        let key = self.data_type(depth + 1)?;
        self.expect(',')?;
        let value = self.data_type(depth + 1)?;
        self.expect('>')?;
        let entry = Fields::from(vec![
            Field::new("key", key, false),
            Field::new("value", value, true),
        ]);
        let entries = Field::new("entries", DataType::Struct(entry), false);
        Ok(DataType::Map(entries.into(), false))
    }

    fn structure(&mut self, depth: usize) -> Result<DataType, String> {
        self.expect('<')?;
        let mut fields: Vec<Field> = Vec::new();
        loop {
            let name = self.field_name()?;
            self.expect(':')?;
            let data_type = self.data_type(depth + 1)?;
            if fields
                .iter()
                .any(|field| field.name().eq_ignore_ascii_case(&name))
            {
                return Err(format!("field '{name}' appears twice"));
            }
            fields.push(Field::new(name, data_type, true));
            if !self.accept(',') {
                break;
            }
        }
        self.expect('>')?;
        Ok(DataType::Struct(fields.into()))
    }

    fn field_name(&mut self) -> Result<String, String> {
        self.skip_blanks();
        let (name, rest) = if let Some(quoted) = self.rest.strip_prefix('`') {
            quoted.split_once('`').ok_or("a backtick is not closed")?
        } else {
            let end = self
                .rest
                .find([':', '<', '>', ','])
                .unwrap_or(self.rest.len());
            self.rest.split_at(end)
        };
        let name = name.trim();
        if name.is_empty() {
            return Err("a field name is missing".to_owned());
        }
        self.rest = rest;
        Ok(name.to_owned())
    }

    /// `(n)` or `(n, m)`: up to `most` numbers, none without parentheses.
    fn arguments(&mut self, most: usize) -> Result<Vec<u8>, String> {
        let mut arguments = Vec::new();
        if !self.accept('(') {
            return Ok(arguments);
        }
        loop {
            let digits = self.word();
            // Lengths of `varchar` reach 65535; only whether they are numbers matters.
            let number: u32 = digits
                .parse()
                .map_err(|_| format!("'{digits}' is not a number"))?;
            arguments.push(u8::try_from(number).unwrap_or(u8::MAX));
            if !self.accept(',') {
                break;
            }
        }
        self.expect(')')?;
        if arguments.len() > most {
            return Err("too many numbers in parentheses".to_owned());
        }
        Ok(arguments)
    }

    /// `timestamp with[out] [local] time zone`: stored the same, read in UTC.
    fn zone(&mut self) {
        if self.word_if("with") || self.word_if("without") {
            self.word_if("local");
            self.word_if("time");
            self.word_if("zone");
        }
    }

    fn word(&mut self) -> &'a str {
        self.skip_blanks();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    fn word_if(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        let found = self.word().eq_ignore_ascii_case(wanted);
        if !found {
            self.rest = before;
        }
        found
    }

    fn accept(&mut self, wanted: char) -> bool {
        self.skip_blanks();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.accept(wanted) {
            Ok(())
        } else {
            Err(format!("'{wanted}' is missing"))
        }
    }

    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primitives() {
        for (text, expected) in [
            ("string", DataType::Utf8View),
            ("VARCHAR(65535)", DataType::Utf8View),
            ("char(3)", DataType::Utf8View),
            ("bigint", DataType::Int64),
            (" int ", DataType::Int32),
            ("smallint", DataType::Int16),
            ("tinyint", DataType::Int8),
            ("double", DataType::Float64),
            ("double precision", DataType::Float64),
            ("float", DataType::Float32),
            ("boolean", DataType::Boolean),
            ("binary", DataType::BinaryView),
            ("date", DataType::Date32),
            ("timestamp", timestamp_type()),
            ("timestamp with local time zone", timestamp_type()),
            ("decimal", DataType::Decimal128(10, 0)),
            ("decimal(38, 18)", DataType::Decimal128(38, 18)),
            ("decimal(7)", DataType::Decimal128(7, 0)),
        ] {
            assert_eq!(parse_hive_type(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nested_types() {
        let structure = DataType::Struct(
            vec![
                Field::new("a b", DataType::Int32, true),
                Field::new("x-y", DataType::new_list(DataType::Utf8View, true), true),
            ]
            .into(),
        );
        let entry = vec![
            Field::new("key", DataType::Utf8View, false),
            Field::new("value", structure, true),
        ];
        let entries = Field::new("entries", DataType::Struct(entry.into()), false);
        assert_eq!(
            parse_hive_type("map<string, struct<`a b`: int, x-y:array<string>>>"),
            Ok(DataType::Map(entries.into(), false))
        );
    }

    #[test]
    fn malformed_types_say_what_is_wrong() {
        for (text, why) in [
            ("", "type name is missing"),
            ("uniontype<int,string>", "'uniontype' is not a type"),
            ("array<int", "'>' is missing"),
            ("array<int>>", "unexpected '>'"),
            ("map<int>", "',' is missing"),
            ("struct<>", "field name is missing"),
            ("struct<a:int,A:int>", "appears twice"),
            ("struct<`a:int>", "backtick"),
            ("decimal(39,2)", "out of range"),
            ("decimal(0)", "out of range"),
            ("decimal(4,5)", "out of range"),
            ("decimal(4,2,1)", "too many"),
            ("decimal(a)", "not a number"),
            ("int string", "unexpected"),
            ("ünsigned", "missing"),
        ] {
            let error = parse_hive_type(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
            assert!(error.starts_with(&format!("type '{text}'")), "{error}");
        }
        let deep = "array<".repeat(100_000);
        assert!(parse_hive_type(&deep).expect_err("deep").contains("deeper"));
    }
}
