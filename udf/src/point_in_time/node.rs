//! The logical point-in-time join.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::IntervalMonthDayNano;
use datafusion::common::{DFSchema, DFSchemaRef, TableReference};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use featureflight_catalog::scan::history::ScanContext;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Instant};

use crate::clock::Clocks;
use crate::point_in_time::age::Age;

/// Which system time a `known_at` cut compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum KnownBy {
    WriteTime,
    ApiInvocationTime,
}

/// The cut on what was known, inclusive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd)]
pub enum KnownAt {
    Always,
    Constant(Instant),
    /// A timestamp over the spine's columns; a null gives nulls.
    Spine(Expr),
}

/// One output column of a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FeatureColumn {
    /// Position in the group's definitions.
    pub feature: usize,
    pub qualifier: Option<TableReference>,
    pub name: String,
}

/// One feature group of a point-in-time join.
#[derive(Debug, Clone)]
pub struct GroupJoin {
    pub table: Arc<FeatureTable>,
    /// Caps on the candidates, from version clauses or the session.
    pub clocks: Clocks,
    /// Over the spine's columns; cast to the record identifier's type by planning.
    pub key: Expr,
    /// Over the spine's columns, a timestamp or date; zone-less is UTC, a date is midnight.
    pub time: Expr,
    /// Inclusive; months are calendar months in UTC, counted back from the row's time.
    pub max_age: Option<IntervalMonthDayNano>,
    pub known_at: KnownAt,
    pub known_by: KnownBy,
    /// All nullable in the output. The event time is a feature like the others.
    pub columns: Vec<FeatureColumn>,
}

/// Output: every spine column (qualified as in the spine), then each group's columns in order.
/// Exactly one row per spine row, in no promised order.
#[derive(Debug, Clone)]
pub struct PointInTimeJoin {
    pub spine: LogicalPlan,
    pub groups: Vec<GroupJoin>,
    pub scan: ScanContext,
    pub schema: DFSchemaRef,
}

impl PointInTimeJoin {
    /// # Errors
    /// A schema error when two output columns have the same qualified name.
    pub fn try_new(spine: LogicalPlan, groups: Vec<GroupJoin>, scan: ScanContext) -> Result<Self> {
        let mut fields: Vec<_> = spine
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        for group in &groups {
            for column in &group.columns {
                let feature = group.table.state_schema.fields().get(column.feature);
                let feature = feature.ok_or_else(|| {
                    let group = group.table.name();
                    Error::internal(format!("{group} has no feature number {}", column.feature))
                })?;
                let field = feature
                    .as_ref()
                    .clone()
                    .with_name(&column.name)
                    .with_nullable(true);
                fields.push((column.qualifier.clone(), Arc::new(field)));
            }
        }
        let metadata = spine.schema().metadata().clone();
        let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
        Ok(Self {
            spine,
            groups,
            scan,
            schema,
        })
    }
}

impl GroupJoin {
    fn expressions(&self) -> impl Iterator<Item = &Expr> {
        let known_at = match &self.known_at {
            KnownAt::Spine(known_at) => Some(known_at),
            KnownAt::Always | KnownAt::Constant(_) => None,
        };
        [&self.key, &self.time].into_iter().chain(known_at)
    }

    /// This join over other expressions, in the order of [`Self::expressions`].
    fn with_expressions(&self, expressions: &mut impl Iterator<Item = Expr>) -> Result<Self> {
        let mut next = || {
            let missing = || Error::internal("a point-in-time join was rebuilt without its keys");
            expressions.next().ok_or_else(missing)
        };
        let (key, time) = (next()?, next()?);
        let known_at = match &self.known_at {
            KnownAt::Spine(_) => KnownAt::Spine(next()?),
            other => other.clone(),
        };
        Ok(Self {
            key,
            time,
            known_at,
            ..self.clone()
        })
    }
}

impl fmt::Display for GroupJoin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (key={}, time={}",
            self.table.name(),
            self.key,
            self.time
        )?;
        if let Some(age) = &self.max_age {
            write!(f, ", max_age={}", Age(*age))?;
        }
        match &self.known_at {
            KnownAt::Always => {}
            KnownAt::Constant(at) => write!(f, ", known_at={at} by {}", self.known_by)?,
            KnownAt::Spine(at) => write!(f, ", known_at={at} by {}", self.known_by)?,
        }
        self.clocks.explain(f)?;
        write!(f, ")")
    }
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WriteTime => "write_time",
            Self::ApiInvocationTime => "api_invocation_time",
        })
    }
}

impl PartialEq for GroupJoin {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            table,
            clocks,
            key,
            time,
            max_age,
            known_at,
            known_by,
            columns,
        } = self;
        Arc::ptr_eq(table, &other.table)
            && *clocks == other.clocks
            && *key == other.key
            && *time == other.time
            && *max_age == other.max_age
            && *known_at == other.known_at
            && *known_by == other.known_by
            && *columns == other.columns
    }
}

impl Eq for GroupJoin {}

impl Hash for GroupJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            table,
            clocks,
            key,
            time,
            max_age,
            known_at,
            known_by,
            columns,
        } = self;
        table.name().hash(state);
        (clocks, key, time, max_age, known_at, known_by, columns).hash(state);
    }
}

impl PartialEq for PointInTimeJoin {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            spine,
            groups,
            scan,
            schema,
        } = self;
        *spine == other.spine
            && *groups == other.groups
            && *schema == other.schema
            && Arc::ptr_eq(&scan.pin, &other.scan.pin)
    }
}

impl Eq for PointInTimeJoin {}

impl Hash for PointInTimeJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spine.hash(state);
        self.groups.hash(state);
    }
}

impl PartialOrd for PointInTimeJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        // Unequal joins of equal spines have no order.
        self.spine
            .partial_cmp(&other.spine)
            .filter(|order| order.is_ne())
    }
}

impl UserDefinedLogicalNodeCore for PointInTimeJoin {
    fn name(&self) -> &'static str {
        "PointInTimeJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.spine]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.groups
            .iter()
            .flat_map(GroupJoin::expressions)
            .cloned()
            .collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PointInTimeJoin: ")?;
        for (position, group) in self.groups.iter().enumerate() {
            let comma = if position == 0 { "" } else { ", " };
            write!(f, "{comma}{group}")?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let mut exprs = exprs.into_iter();
        let groups = self
            .groups
            .iter()
            .map(|group| group.with_expressions(&mut exprs));
        let groups = groups.collect::<Result<_>>()?;
        let mut inputs = inputs.into_iter();
        match (inputs.next(), inputs.next(), exprs.next()) {
            (Some(spine), None, None) => Self::try_new(spine, groups, self.scan.clone()),
            _ => Err(Error::internal("a point-in-time join was rebuilt from other parts").into()),
        }
    }

    /// Only the features: a predicate on columns of the spine holds or not whatever a row matches.
    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        let columns = self.groups.iter().flat_map(|group| &group.columns);
        columns.map(|column| column.name.clone()).collect()
    }

    /// Every row of the spine is one of the output.
    fn supports_limit_pushdown(&self) -> bool {
        true
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // What keys, times and cuts need is added by the caller.
        let spine = self.spine.schema().fields().len();
        Some(vec![
            output_columns
                .iter()
                .copied()
                .filter(|column| *column < spine)
                .collect(),
        ])
    }
}
