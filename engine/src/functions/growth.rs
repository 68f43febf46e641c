//! How large the result of a call may become and how long it may take, asked before the call is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::{cast, concat};
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};

use super::patterns::Search;
use super::{
    MAX_CALL_BYTES, MAX_CONSTANT_BYTES, MAX_VALUE_BYTES, invalid, items, patterns, too_large, width,
};
use crate::interruption;

/// Most comparisons of one call that makes all of them: half a second that nothing can interrupt.
const MAX_CALL_STEPS: u64 = 1 << 29;

/// Most steps that one value may take at worst, and that are taken between looks at the clock.
const MAX_VALUE_STEPS: u64 = 1 << 31;
const MAX_PIECE_STEPS: u64 = 1 << 28;

/// How long a call may take whose steps are known at worst only, and are far fewer for most texts.
const MAX_CALL_TIME: Duration = Duration::from_secs(2);

/// Most bytes that rows computed at once may become: builders take up to twice as much.
const MAX_PIECE_BYTES: u64 = MAX_CALL_BYTES / 4;

/// Bytes of an element as text: a number, a timestamp.
const ELEMENT_TEXT: u64 = 32;

/// Bytes that a byte of a text takes as a text of its own, with its offset.
const SPLIT_BYTE: u64 = 5;

/// How the size of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Rule {
    /// The first as often as the second says.
    Times,
    /// To as many characters as the second says.
    Padded,
    /// All arguments together.
    Sum,
    /// All arguments together, the first between them.
    Joined,
    /// The first, with every occurrence of the second replaced by the third.
    Replaced,
    /// The first, with every match of a pattern replaced by the third, which may name groups.
    Matched,
    /// Twice the first.
    Doubled,
    /// The first, with each character as one of up to four bytes.
    Recased,
    /// The first in pieces.
    Split,
    /// A number for each element of the first.
    Numbers,
    /// A format, each letter of which becomes some.
    Formatted,
    /// Elements like the first, as often as the second says.
    Elements,
    /// As many elements as the second says.
    Resized,
    /// The elements of the first as text, the second between them.
    JoinedElements,
    /// The first, with elements replaced by the last argument.
    ReplacedElements,
    /// The numbers or times from one argument to another.
    Span,
    /// Every element of one against every element of the other; the result is small.
    Steps,
    /// As [`Rule::Steps`] at worst, where most texts take one step for each byte.
    Scanned,
    /// One search for a pattern; the result is small.
    Found,
    /// All matches of a pattern; the result is small.
    Counted,
    /// The result only refers to the arguments; its type may be wide.
    Width,
}

/// A function that is asked first. It has no `simplify`: what that makes is not guarded.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Guarded {
    inner: Arc<ScalarUDF>,
    rule: Rule,
}

impl Guarded {
    pub(super) fn new(inner: Arc<ScalarUDF>, rule: Rule) -> Self {
        Self { inner, rule }
    }
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.inner().return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let field = self.inner.inner().return_field_from_args(args)?;
        width::check(field.data_type(), self.name())?;
        Ok(field)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        interruption::check()?;
        let name = self.name();
        let pieces = pieces(self.rule, &args, name)?;
        if pieces.len() <= 1 {
            return self.inner.inner().invoke_with_args(args);
        }
        let began = Instant::now();
        let mut made = 0;
        let mut arrays = Vec::with_capacity(pieces.len());
        for (start, rows) in pieces {
            let part = self
                .inner
                .inner()
                .invoke_with_args(slice(&args, start, rows))?;
            let part = part.into_array(rows)?;
            made += part.get_array_memory_size() as u64;
            if made > MAX_CALL_BYTES {
                return Err(over(name));
            }
            if began.elapsed() > MAX_CALL_TIME {
                return Err(too_long(name));
            }
            interruption::check()?;
            arrays.push(part);
        }
        let parts: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&parts)?))
    }
}

fn over(name: &str) -> datafusion::error::DataFusionError {
    too_large(format!(
        "{name} would make a value too large: the limit is {MAX_VALUE_BYTES} bytes, and \
         {MAX_CALL_BYTES} for the rows of a batch"
    ))
}

fn too_long(name: &str) -> datafusion::error::DataFusionError {
    too_large(format!(
        "{name} would take too long on texts or lists of this size: shorten them, split them into \
         rows, or use a simpler pattern"
    ))
}

/// Runs of rows that may be computed at once, as start and length: a bound that counts on the worst
/// is far above what most rows become.
fn pieces(rule: Rule, args: &ScalarFunctionArgs, name: &str) -> Result<Vec<(usize, usize)>> {
    let arguments = Arguments::new(&args.args)?;
    let rows = if arguments.constant() {
        1
    } else {
        args.number_rows
    };
    if rule == Rule::Steps {
        let steps = (0..rows).map(|row| arguments.pairs(row));
        if steps.fold(0, u64::saturating_add) > MAX_CALL_STEPS {
            return Err(too_large(format!(
                "{name} would compare too much: the limit is {MAX_CALL_STEPS} comparisons for \
                 the rows of a batch"
            )));
        }
        return Ok(Vec::new());
    }
    let searches = arguments.searches(rule, rows)?;
    let mut pieces = Vec::new();
    let (mut start, mut bytes, mut steps) = (0, 0_u64, 0_u64);
    for row in 0..rows {
        let more = arguments.bytes(rule, row)?;
        if more > MAX_VALUE_BYTES {
            return Err(over(name));
        }
        if more > MAX_CONSTANT_BYTES && arguments.constant() {
            return Err(too_large(format!(
                "{name} would make a constant too large: the limit is {MAX_CONSTANT_BYTES} bytes"
            )));
        }
        let longer = arguments.steps(rule, &searches, row);
        if longer > MAX_VALUE_STEPS {
            return Err(too_long(name));
        }
        bytes += more;
        steps += longer;
        if row > start && (bytes > MAX_PIECE_BYTES || steps > MAX_PIECE_STEPS) {
            pieces.push((start, row - start));
            (start, bytes, steps) = (row, more, longer);
        }
    }
    pieces.push((start, rows - start));
    Ok(pieces)
}

fn slice(args: &ScalarFunctionArgs, start: usize, rows: usize) -> ScalarFunctionArgs {
    let part = |value: &ColumnarValue| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, rows)),
        scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
    };
    ScalarFunctionArgs {
        args: args.args.iter().map(part).collect(),
        number_rows: rows,
        ..args.clone()
    }
}

/// The arguments of a call, row by row.
struct Arguments(Vec<Argument>);

struct Argument {
    /// One row where the argument is constant.
    values: ArrayRef,
    constant: bool,
}

impl Arguments {
    fn new(args: &[ColumnarValue]) -> Result<Self> {
        let argument = |value: &ColumnarValue| match value {
            ColumnarValue::Array(array) => Ok(Argument {
                values: Arc::clone(array),
                constant: false,
            }),
            ColumnarValue::Scalar(scalar) => Ok(Argument {
                values: scalar.to_array()?,
                constant: true,
            }),
        };
        args.iter().map(argument).collect::<Result<_>>().map(Self)
    }

    fn constant(&self) -> bool {
        self.0.iter().all(|argument| argument.constant)
    }

    /// Most bytes of the result of a row.
    fn bytes(&self, rule: Rule, row: usize) -> Result<u64> {
        let size = |index: usize| self.size(index, row);
        let count = |index: usize| -> Result<u64> {
            let number = self.number(index, row)?.unwrap_or(0);
            Ok(u64::try_from(number).unwrap_or(0))
        };
        Ok(match rule {
            Rule::Times => size(0).max(1).saturating_mul(count(1)?),
            Rule::Elements => self.element(0, row).saturating_mul(count(1)?),
            Rule::Recased => size(0).saturating_mul(4),
            Rule::Padded => count(1)?.saturating_add(size(0)),
            Rule::Sum => self.sum(0, row),
            Rule::Joined => {
                let between = size(0).saturating_mul(self.0.len() as u64);
                self.sum(1, row).saturating_add(between)
            }
            Rule::Replaced => {
                // An empty text is found nowhere, or at most between all characters.
                let found = size(0) / size(1).max(1) + 1;
                size(0).saturating_add(found.saturating_mul(size(2)))
            }
            Rule::Matched => (size(0) + 1).saturating_mul(size(2) + 1),
            Rule::Doubled => size(0).saturating_mul(2),
            Rule::Split => size(0).saturating_mul(SPLIT_BYTE),
            Rule::Numbers => self.elements(0, row).saturating_mul(8),
            Rule::Formatted => size(1).saturating_mul(ELEMENT_TEXT),
            Rule::Resized => {
                let each = size(2).max(self.item(0)).max(8);
                self.length(1, row)?.saturating_mul(each)
            }
            Rule::JoinedElements => {
                let each = size(1).saturating_add(size(2)).saturating_add(ELEMENT_TEXT);
                size(0).saturating_add(self.elements(0, row).saturating_mul(each))
            }
            Rule::ReplacedElements => {
                let new = self.size(self.0.len() - 1, row).max(size(2));
                size(0).saturating_add(self.elements(0, row).saturating_mul(new))
            }
            Rule::Span => self.span(row)?.saturating_mul(8),
            Rule::Steps | Rule::Scanned | Rule::Found | Rule::Counted | Rule::Width => 0,
        })
    }

    /// Most steps a row may take.
    fn steps(&self, rule: Rule, searches: &[Search], row: usize) -> u64 {
        let search = |index: usize| searches.get(index).or(searches.first());
        match (rule, search(row)) {
            (Rule::Scanned, _) => self.pairs(row),
            (Rule::Found, Some(search)) => search.once(self.size(0, row)),
            (Rule::Counted | Rule::Matched, Some(search)) => search.throughout(self.size(0, row)),
            _ => 0,
        }
    }

    /// What the patterns of a rule take: one where it is constant, else one for each row.
    fn searches(&self, rule: Rule, rows: usize) -> Result<Vec<Search>> {
        match (rule, self.0.get(1)) {
            (Rule::Found | Rule::Counted | Rule::Matched, Some(pattern)) => {
                let rows = if pattern.constant { 1 } else { rows };
                patterns::searches(&pattern.values.slice(0, rows))
            }
            _ => Ok(Vec::new()),
        }
    }

    fn pairs(&self, row: usize) -> u64 {
        self.elements(0, row).saturating_mul(self.elements(1, row))
    }

    /// # Errors
    /// `InvalidArgument` for a length below zero.
    fn length(&self, index: usize, row: usize) -> Result<u64> {
        let length = self.number(index, row)?.unwrap_or(0);
        u64::try_from(length).map_err(|_| {
            invalid(format!(
                "a list cannot have {length} elements: give 0 or more"
            ))
        })
    }

    fn sum(&self, from: usize, row: usize) -> u64 {
        let sizes = (from..self.0.len()).map(|index| self.size(index, row));
        sizes.fold(0, u64::saturating_add)
    }

    /// Bytes of an argument as an element of a list.
    fn element(&self, index: usize, row: usize) -> u64 {
        let least = self.0.get(index).map_or(0, |argument| {
            width::width(argument.values.data_type(), u64::MAX)
        });
        self.size(index, row).max(least)
    }

    /// Least bytes of an element of a list.
    fn item(&self, index: usize) -> u64 {
        let list = self
            .0
            .get(index)
            .map(|argument| argument.values.data_type());
        list.and_then(items::of)
            .map_or(0, |item| width::width(item, u64::MAX))
    }

    fn size(&self, index: usize, row: usize) -> u64 {
        self.0
            .get(index)
            .map_or(0, |argument| size_of(&argument.values, argument.row(row)))
    }

    /// Elements of a list, or bytes of a text; rather too many than too few.
    fn elements(&self, index: usize, row: usize) -> u64 {
        let Some(argument) = self.0.get(index) else {
            return 0;
        };
        let least = match argument.values.data_type() {
            DataType::List(field)
            | DataType::LargeList(field)
            | DataType::FixedSizeList(field, _) => field.data_type().primitive_width(),
            _ => None,
        };
        self.size(index, row) / least.unwrap_or(1).max(1) as u64
    }

    fn number(&self, index: usize, row: usize) -> Result<Option<i64>> {
        let Some(argument) = self.0.get(index) else {
            return Ok(None);
        };
        let row = argument.row(row);
        let number = cast(&argument.values.slice(row, 1), &DataType::Int64)?;
        let number = number.as_primitive::<Int64Type>();
        Ok(number.is_valid(0).then(|| number.value(0)))
    }

    /// How many numbers or times there are from one argument to the next.
    fn span(&self, row: usize) -> Result<u64> {
        let (start, stop, step) = match self.0.len() {
            1 => (None, 0, None),
            2 => (Some(0), 1, None),
            _ => (Some(0), 1, Some(2)),
        };
        let first = match start {
            Some(index) => self.number(index, row)?,
            None => Some(0),
        };
        let (Some(first), Some(last)) = (first, self.number(stop, row)?) else {
            return Ok(0);
        };
        let span = i128::from(first).abs_diff(i128::from(last));
        let unit = self
            .0
            .get(stop)
            .map_or(1, |argument| nanos(argument.values.data_type()));
        let step = match step {
            Some(index) => self.step(index, row)?,
            None => 1,
        };
        let many = span.saturating_mul(unit) / step.max(1) + 1;
        Ok(u64::try_from(many).unwrap_or(u64::MAX))
    }

    /// A step, in nanoseconds where it is one of time.
    fn step(&self, index: usize, row: usize) -> Result<u128> {
        let Some(argument) = self.0.get(index) else {
            return Ok(1);
        };
        if let Some(interval) = argument
            .values
            .as_primitive_opt::<IntervalMonthDayNanoType>()
        {
            let step = interval.value(argument.row(row));
            let signs = [step.months.signum(), step.days.signum()].map(i64::from);
            let signs = [signs[0], signs[1], step.nanoseconds.signum()];
            if signs.contains(&1) && signs.contains(&-1) {
                return Err(invalid(
                    "a step of time whose months, days and hours go different ways may never \
                     arrive: give an INTERVAL of one direction"
                        .to_owned(),
                ));
            }
            let days = i128::from(step.months) * 28 + i128::from(step.days);
            // Dates go by whole days.
            let rest = match self.0.first().map(|start| start.values.data_type()) {
                Some(DataType::Date32 | DataType::Date64) => 0,
                _ => i128::from(step.nanoseconds),
            };
            return Ok((days * DAY + rest).unsigned_abs());
        }
        let step = self.number(index, row)?.unwrap_or(1);
        Ok(u128::from(step.unsigned_abs()))
    }
}

const DAY: i128 = 86_400_000_000_000;

/// Nanoseconds of a unit of a type of time; one for numbers.
fn nanos(data_type: &DataType) -> u128 {
    match data_type {
        DataType::Date32 => DAY.unsigned_abs(),
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
        _ => 1,
    }
}

impl Argument {
    fn row(&self, row: usize) -> usize {
        if self.constant { 0 } else { row }
    }
}

/// The bytes of one value. Nulls of fixed size take theirs, and so does each element of a list.
pub(super) fn size_of(values: &ArrayRef, row: usize) -> u64 {
    use DataType as T;
    let bytes = match values.data_type() {
        T::FixedSizeList(..) | T::FixedSizeBinary(_) | T::Struct(_) if values.is_null(row) => {
            return width::width(values.data_type(), u64::MAX);
        }
        _ if values.is_null(row) => 0,
        T::Utf8 => values.as_string::<i32>().value_length(row) as usize,
        T::LargeUtf8 => values.as_string::<i64>().value_length(row) as usize,
        T::Utf8View => values.as_string_view().value(row).len(),
        T::Binary => values.as_binary::<i32>().value_length(row) as usize,
        T::LargeBinary => values.as_binary::<i64>().value_length(row) as usize,
        T::BinaryView => values.as_binary_view().value(row).len(),
        other => {
            let Some(width) = other.primitive_width() else {
                let value = values.slice(row, 1);
                let bytes = value.to_data().get_slice_memory_size();
                let least = items::least(&value);
                return (bytes.unwrap_or(usize::MAX) as u64).max(least);
            };
            width
        }
    };
    bytes as u64
}
