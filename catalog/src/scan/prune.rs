//! Leaves out what cannot matter: row groups of which the statistics in the footer, or bloom
//! filters, prove that no version passes.
//!
//! Only proofs count. A bound that is missing, that is not a number, or that was written under an
//! order other than the one it is read by proves nothing; nor does any statistic of a column that
//! may hold nulls, which have to be met as the errors they are. Timestamps count where they are
//! INT64 (the order of INT96 statistics is not defined), identifiers where they are stored as
//! what their definition says, not as something that is widened. Bounds of text may be cut off:
//! unless the writer says that it is whole, everything that begins with an upper bound counts as
//! within it.
//!
//! Text event times prove little. Every accepted form begins with the ten characters of a date,
//! and all text between two bounds has its date between theirs, so dates are bounds in local
//! time. But the zone is at the end of a text, and two bounds that end in `Z` say nothing about
//! the zones between them: `2026-01-01T10:30:00+14:00` lies between `2026-01-01T10:00:00Z` and
//! `2026-01-01T11:00:00Z`, and fourteen hours before both. So bounds count as a day wider, which
//! is what the hour folders prove already; it helps where files lie beside those.

mod bloom;
mod keys;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::DataType;
use parquet::basic::SortOrder;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;

use crate::instant::Instant;
use crate::listing::EventRange;
use crate::model::{FeatureType, SYSTEM_COLUMNS};
use crate::table::{EventTimeForm, FeatureTable};

use super::files::ScanMetrics;
use super::footer::Footer;

pub use keys::SortedKeys;

const DAY: i64 = 86_400_000_000;

/// What a version must have to matter; whatever lacks it may be left out, and need not be. The
/// default leaves out nothing.
#[derive(Debug, Clone, Default)]
pub struct Prune {
    pub event_time: EventRange,
    pub write_time_at_most: Option<Instant>,
    pub api_invocation_time_at_most: Option<Instant>,
    /// The record identifiers that are looked for; `None` for all.
    pub keys: Option<Arc<dyn KeyBounds>>,
}

impl Prune {
    /// Whether it asks for nothing.
    pub fn is_none(&self) -> bool {
        self.event_time == EventRange::ALL
            && self.write_time_at_most.is_none()
            && self.api_invocation_time_at_most.is_none()
            && self.keys.is_none()
    }
}

/// A record identifier. Doubles are equal as the contract says: `-0.0` is `0.0`, and every NaN is
/// the same identifier.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    Integer(i64),
    Double(f64),
    Text(&'a str),
}

/// Where the record identifiers of some versions lie.
#[derive(Debug, Clone, Copy)]
pub enum KeyRange<'a> {
    Integer {
        from: i64,
        to: i64,
    },
    /// Compared as numbers, `-0.0` as `0.0`. NaNs may be there beside those within the bounds.
    Double {
        from: f64,
        to: f64,
    },
    /// Compared by their bytes; `before` is no bound when it is absent.
    Text {
        from: &'a [u8],
        before: Option<&'a [u8]>,
    },
}

impl KeyRange<'_> {
    /// Whether `key` may be there. A key of another type may.
    pub fn may_hold(&self, key: Key<'_>) -> bool {
        match (*self, key) {
            (Self::Integer { from, to }, Key::Integer(key)) => (from..=to).contains(&key),
            (Self::Double { from, to }, Key::Double(key)) => {
                key.is_nan() || (from..=to).contains(&key)
            }
            (Self::Text { from, before }, Key::Text(key)) => {
                let key = key.as_bytes();
                from <= key && before.is_none_or(|before| key < before)
            }
            _ => true,
        }
    }

    /// False for bounds that are NaN, or the wrong way round.
    fn is_in_order(&self) -> bool {
        match self {
            Self::Integer { from, to } => from <= to,
            Self::Double { from, to } => from <= to,
            Self::Text { from, before } => before.is_none_or(|before| *from < before),
        }
    }
}

/// The record identifiers that somebody looks for.
pub trait KeyBounds: Debug + Send + Sync {
    /// Whether one of them may be in `range`. When in doubt, yes.
    fn meets(&self, range: KeyRange<'_>) -> bool;

    /// Those that may be in `range` (all, without one), one by one; `None` where they are too many.
    fn each(&self, _range: Option<KeyRange<'_>>) -> Option<Box<dyn Iterator<Item = Key<'_>> + '_>> {
        None
    }
}

/// What the footer of a file says of its rows. Bounds are inclusive, may be wider than what they
/// bound, and are absent where the file proves none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileBounds {
    pub rows: u64,
    pub event_time: Option<(Instant, Instant)>,
    pub write_time: Option<(Instant, Instant)>,
    pub api_invocation_time: Option<(Instant, Instant)>,
}

/// The row groups of a file that are left out, and why.
#[derive(Debug)]
pub(crate) struct LeftOut {
    /// One flag for each row group; empty when all are read.
    groups: Vec<bool>,
    total: usize,
    by_statistics: usize,
    by_bloom_filter: usize,
}

impl LeftOut {
    pub(crate) fn contains(&self, group: usize) -> bool {
        self.groups.get(group).copied().unwrap_or(false)
    }

    fn add(&mut self, group: usize) {
        self.groups.resize(self.total, false);
        self.groups[group] = true;
    }

    /// Whether nothing of the file is left.
    pub(crate) fn is_all(&self) -> bool {
        self.total > 0 && self.by_statistics + self.by_bloom_filter == self.total
    }

    /// Counts the file as read or not, and its row groups.
    pub(crate) fn count(&self, metrics: &ScanMetrics) {
        metrics.row_groups_pruned.add(self.by_statistics);
        let by_bloom_filter = &metrics.row_groups_pruned_by_bloom_filter;
        by_bloom_filter.add(self.by_bloom_filter);
        if !self.is_all() {
            metrics.files_read.add(1);
        } else if self.by_bloom_filter > 0 {
            metrics.files_pruned_by_bloom_filter.add(1);
        } else {
            metrics.files_pruned_by_statistics.add(1);
        }
    }
}

/// Where the columns that statistics are kept of are in a file: root columns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) record_identifier: usize,
    pub(crate) event_time: usize,
    pub(crate) write_time: usize,
    pub(crate) api_invocation_time: usize,
}

/// The names of the columns that statistics are kept of.
pub(crate) fn kept(table: &FeatureTable) -> [&str; 4] {
    let name = |feature: usize| {
        table.group.feature_definitions[feature]
            .feature_name
            .as_str()
    };
    let [write_time, api_invocation_time, _] = SYSTEM_COLUMNS;
    [
        name(table.record_identifier),
        name(table.event_time),
        write_time,
        api_invocation_time,
    ]
}

/// What one file says of its row groups.
pub(crate) struct GroupBounds<'a> {
    pub(crate) table: &'a FeatureTable,
    pub(crate) footer: &'a Footer,
    pub(crate) places: Places,
}

impl GroupBounds<'_> {
    /// Which row groups are left out for their statistics.
    pub(crate) fn left_out(&self, prune: &Prune) -> LeftOut {
        let groups = self.footer.reader.metadata().num_row_groups();
        let mut left_out = LeftOut {
            groups: Vec::new(),
            total: groups,
            by_statistics: 0,
            by_bloom_filter: 0,
        };
        if !prune.is_none() {
            for group in (0..groups).filter(|&group| !self.may_pass(group, prune)) {
                left_out.add(group);
                left_out.by_statistics += 1;
            }
        }
        left_out
    }

    /// Of all row groups together.
    pub(crate) fn of_file(&self) -> FileBounds {
        let groups = self.footer.reader.metadata().row_groups();
        let hull = |bounds: &dyn Fn(usize) -> Option<(Instant, Instant)>| {
            let mut with_rows = (0..groups.len()).filter(|&group| groups[group].num_rows() > 0);
            let first = bounds(with_rows.next()?)?;
            with_rows.try_fold(first, |(from, to), group| {
                let (first, last) = bounds(group)?;
                Some((from.min(first), to.max(last)))
            })
        };
        FileBounds {
            rows: groups
                .iter()
                .map(|group| group.num_rows().unsigned_abs())
                .sum(),
            event_time: hull(&|group| self.event_time(group)),
            write_time: hull(&|group| self.write_time(group)),
            api_invocation_time: hull(&|group| self.api_invocation_time(group)),
        }
    }

    /// Whether a version in this row group may pass, for all that its statistics say.
    pub(crate) fn may_pass(&self, group: usize, prune: &Prune) -> bool {
        let within = |bounds: Option<(Instant, Instant)>, range: EventRange| {
            bounds.is_none_or(|(first, last)| {
                let found = EventRange {
                    from: Some(first),
                    to: Some(last),
                };
                !found.intersect(range).is_empty()
            })
        };
        let until = |to: Instant| EventRange {
            from: None,
            to: Some(to),
        };
        (prune.event_time == EventRange::ALL || within(self.event_time(group), prune.event_time))
            && prune
                .write_time_at_most
                .is_none_or(|to| within(self.write_time(group), until(to)))
            && prune
                .api_invocation_time_at_most
                .is_none_or(|to| within(self.api_invocation_time(group), until(to)))
            && prune.keys.as_ref().is_none_or(|keys| {
                self.keys(group, |range| range.is_none_or(|range| keys.meets(range)))
            })
    }

    /// Bounds of the event times in a row group.
    pub(crate) fn event_time(&self, group: usize) -> Option<(Instant, Instant)> {
        let form = Some(self.table.event_time_form);
        self.instants(group, self.places.event_time, form)
    }

    pub(crate) fn write_time(&self, group: usize) -> Option<(Instant, Instant)> {
        self.instants(group, self.places.write_time, None)
    }

    pub(crate) fn api_invocation_time(&self, group: usize) -> Option<(Instant, Instant)> {
        self.instants(group, self.places.api_invocation_time, None)
    }

    fn instants(
        &self,
        group: usize,
        root: usize,
        form: Option<EventTimeForm>,
    ) -> Option<(Instant, Instant)> {
        let (statistics, kind) = self.statistics(group, root)?;
        let (first, last) = match (statistics, kind, form) {
            (Statistics::Int64(values), DataType::Timestamp(unit, _), _) => {
                let (first, last) = values.min_opt().zip(values.max_opt())?;
                let instant = |value: &i64| Instant::from_unit(*value, *unit);
                (instant(first)?, instant(last)?)
            }
            (Statistics::Double(values), DataType::Float64, Some(EventTimeForm::Seconds)) => {
                let (first, last) = values.min_opt().zip(values.max_opt())?;
                // Rounding keeps the order.
                (
                    Instant::from_seconds(*first)?,
                    Instant::from_seconds(*last)?,
                )
            }
            (Statistics::ByteArray(values), DataType::Utf8View, Some(EventTimeForm::Text)) => {
                let (first, last) = values.min_opt().zip(values.max_opt())?;
                days(first.data(), last.data())?
            }
            _ => return None,
        };
        (first <= last).then_some((first, last))
    }

    /// What `with` says of where the record identifiers of a row group lie, if that is known.
    pub(crate) fn keys<R>(&self, group: usize, with: impl FnOnce(Option<KeyRange<'_>>) -> R) -> R {
        let Some((statistics, kind)) = self.statistics(group, self.places.record_identifier) else {
            return with(None);
        };
        let definition = &self.table.group.feature_definitions[self.table.record_identifier];
        let bounds = match (statistics, kind, &definition.feature_type) {
            (Statistics::Int64(values), DataType::Int64, FeatureType::Integral) => {
                let bounds = values.min_opt().zip(values.max_opt());
                bounds.map(|(from, to)| KeyRange::Integer {
                    from: *from,
                    to: *to,
                })
            }
            (Statistics::Double(values), DataType::Float64, FeatureType::Fractional) => {
                let bounds = values.min_opt().zip(values.max_opt());
                bounds.map(|(from, to)| KeyRange::Double {
                    from: *from,
                    to: *to,
                })
            }
            (Statistics::ByteArray(values), DataType::Utf8View, FeatureType::String) => {
                let bounds = values.min_opt().zip(values.max_opt());
                let before = bounds.and_then(|(_, to)| {
                    if values.max_is_exact() {
                        Some([to.data(), b"\0"].concat())
                    } else {
                        after_prefix(to.data())
                    }
                });
                let range = bounds.map(|(from, _)| KeyRange::Text {
                    from: from.data(),
                    before: before.as_deref(),
                });
                return with(range.filter(KeyRange::is_in_order));
            }
            _ => None,
        };
        with(bounds.filter(KeyRange::is_in_order))
    }

    /// The statistics of a column in a row group, and what it is decoded to, if they are in order
    /// and the column holds no nulls.
    fn statistics(&self, group: usize, root: usize) -> Option<(&Statistics, &DataType)> {
        let leaf = self.footer.leaf(root)?;
        let metadata = self.footer.reader.metadata();
        let column = metadata.row_group(group).column(leaf);
        let statistics = column.statistics()?;
        let order = metadata.file_metadata().column_order(leaf).sort_order();
        let is_ordered = match statistics {
            // Whole numbers were compared as signed ones by every writer there ever was.
            Statistics::Int64(_) => order == SortOrder::SIGNED,
            Statistics::Double(_) => {
                order == SortOrder::SIGNED && !statistics.is_min_max_deprecated()
            }
            Statistics::ByteArray(_) => {
                order == SortOrder::UNSIGNED && !statistics.is_min_max_deprecated()
            }
            _ => false,
        };
        if !is_ordered || !has_no_nulls(column, statistics) {
            return None;
        }
        let fields = self.footer.reader.schema().fields();
        Some((statistics, fields.get(root)?.data_type()))
    }
}

fn has_no_nulls(column: &ColumnChunkMetaData, statistics: &Statistics) -> bool {
    column.column_descr().max_def_level() == 0 || statistics.null_count_opt() == Some(0)
}

/// Bounds in time of all text between these bounds.
fn days(first: &[u8], last: &[u8]) -> Option<(Instant, Instant)> {
    let date = |text: &[u8]| {
        let date = std::str::from_utf8(text.get(..10)?).ok()?;
        Instant::parse(date).ok()
    };
    Some((
        Instant::from_micros(date(first)?.micros - DAY),
        Instant::from_micros(date(last)?.micros + 2 * DAY),
    ))
}

/// The least text after all that begins with `prefix`, if there is one.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|&byte| byte < u8::MAX)?;
    let mut after = prefix[..=last].to_vec();
    after[last] += 1;
    Some(after)
}
