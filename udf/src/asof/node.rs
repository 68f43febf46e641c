//! The logical as-of join.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNodeCore};
use featureflight_catalog::Error;

/// How the left time bounds the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum AsofOperator {
    /// `left >= right`: the greatest right value not after the left one.
    GreaterOrEqual,
    Greater,
    /// `left <= right`: the least right value not before the left one.
    LessOrEqual,
    Less,
}

/// Output: the left columns, then the right ones, nullable. Null keys and null times match
/// nothing. Of several right rows with the matched time, the one whose remaining columns, in
/// order, are greatest (nulls first) is taken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AsofJoin {
    pub left: LogicalPlan,
    pub right: LogicalPlan,
    /// Equal keys, of one type per pair; may be empty.
    pub on: Vec<(Expr, Expr)>,
    pub left_time: Expr,
    pub operator: AsofOperator,
    /// Of `left_time`'s type.
    pub right_time: Expr,
    pub schema: DFSchemaRef,
}

impl AsofJoin {
    /// # Errors
    /// A schema error when two output columns have the same qualified name.
    pub fn try_new(
        left: LogicalPlan,
        right: LogicalPlan,
        on: Vec<(Expr, Expr)>,
        left_time: Expr,
        operator: AsofOperator,
        right_time: Expr,
    ) -> Result<Self> {
        let fields = left
            .schema()
            .iter()
            .map(|(qualifier, field)| (qualifier, Arc::clone(field)));
        let nullable = right.schema().iter().map(|(qualifier, field)| {
            (
                qualifier,
                Arc::new(field.as_ref().clone().with_nullable(true)),
            )
        });
        let fields = fields
            .chain(nullable)
            .map(|(qualifier, field)| (qualifier.cloned(), field));
        let mut metadata = right.schema().metadata().clone();
        metadata.extend(left.schema().metadata().clone());
        let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?);
        Ok(Self {
            left,
            right,
            on,
            left_time,
            operator,
            right_time,
            schema,
        })
    }
}

impl AsofOperator {
    /// Whether the match lies before the left time, so that both sides are walked forwards.
    pub(crate) fn looks_back(self) -> bool {
        matches!(self, Self::GreaterOrEqual | Self::Greater)
    }

    /// Whether a right time may match a left one, by how it compares with it.
    pub(crate) fn admits(self, right_to_left: Ordering) -> bool {
        match self {
            Self::GreaterOrEqual => right_to_left.is_le(),
            Self::Greater => right_to_left.is_lt(),
            Self::LessOrEqual => right_to_left.is_ge(),
            Self::Less => right_to_left.is_gt(),
        }
    }
}

impl fmt::Display for AsofOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
            Self::LessOrEqual => "<=",
            Self::Less => "<",
        })
    }
}

impl PartialOrd for AsofJoin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        if self == other {
            return Some(Ordering::Equal);
        }
        // Unequal joins of equal left sides have no order.
        self.left
            .partial_cmp(&other.left)
            .filter(|order| order.is_ne())
    }
}

impl UserDefinedLogicalNodeCore for AsofJoin {
    fn name(&self) -> &'static str {
        "AsofJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.left, &self.right]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        let keys = self.on.iter().flat_map(|(left, right)| [left, right]);
        keys.chain([&self.left_time, &self.right_time])
            .cloned()
            .collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "AsofJoin: {} {} {}",
            self.left_time, self.operator, self.right_time
        )?;
        for (left, right) in &self.on {
            write!(f, ", {left} = {right}")?;
        }
        Ok(())
    }

    fn with_exprs_and_inputs(
        &self,
        mut exprs: Vec<Expr>,
        inputs: Vec<LogicalPlan>,
    ) -> Result<Self> {
        let wrong = || Error::internal("an as-of join was rebuilt from other parts");
        let (Some(right_time), Some(left_time)) = (exprs.pop(), exprs.pop()) else {
            return Err(wrong().into());
        };
        let mut on = Vec::with_capacity(self.on.len());
        let mut keys = exprs.into_iter();
        while let (Some(left), Some(right)) = (keys.next(), keys.next()) {
            on.push((left, right));
        }
        let [left, right] = <[_; 2]>::try_from(inputs).map_err(|_| wrong())?;
        if on.len() != self.on.len() {
            return Err(wrong().into());
        }
        Self::try_new(left, right, on, left_time, self.operator, right_time)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        // What keys and times need is added by the caller. Every column of the right side decides
        // between rows of one time: without it another row would be chosen.
        let left = self.left.schema().fields().len();
        let right = self.right.schema().fields().len();
        let wanted = output_columns
            .iter()
            .copied()
            .filter(|column| *column < left)
            .collect();
        Some(vec![wanted, (0..right).collect()])
    }
}
