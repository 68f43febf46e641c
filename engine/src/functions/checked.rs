//! Arguments that are handed through after a look at what using them takes: calls and operators that
//! cannot be guarded themselves get these in the place of what they were given.

use arrow::datatypes::DataType;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};

use super::{items, patterns, subqueries};

/// What is looked at. It is the first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// The patterns of a batch.
    Patterns,
    /// Texts, and the patterns they are matched with.
    Texts,
    /// The value of a subquery.
    Subquery,
    /// Lists, each element of which becomes so many bytes.
    Items(u64),
}

impl What {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Patterns => "checked_pattern",
            Self::Texts => "checked_text",
            Self::Subquery => "checked_subquery",
            Self::Items(_) => "checked_items",
        }
    }
}

/// See the module.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Checked {
    what: What,
    signature: Signature,
}

impl Checked {
    pub(super) fn new(what: What) -> Self {
        let arguments = match what {
            What::Patterns | What::Subquery | What::Items(_) => 1,
            What::Texts => 2,
        };
        Self {
            what,
            signature: Signature::any(arguments, Volatility::Immutable),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        self.what.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.what {
            What::Patterns => patterns::check_batch(&args),
            What::Texts => patterns::check_matching(&args),
            What::Subquery => subqueries::check(&args),
            What::Items(width) => items::check(&args, width),
        }?;
        Ok(args.args.swap_remove(0))
    }
}
