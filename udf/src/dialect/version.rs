//! Version clauses as planning sees them: which clock, which time, whatever the spelling.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, TableFactor, TableVersion,
};
use featureflight_catalog::{Error, Result};

/// What a clause cuts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    System,
    Valid,
    Version,
}

impl Clock {
    /// By the word before `AS OF`, or before `=>` in `AT(...)`.
    pub(super) fn from_word(word: &str) -> Option<Self> {
        match word.to_ascii_uppercase().as_str() {
            "SYSTEM_TIME" | "TIMESTAMP" => Some(Self::System),
            "VALID_TIME" => Some(Self::Valid),
            "VERSION" | "SYSTEM_VERSION" => Some(Self::Version),
            _ => None,
        }
    }

    pub(super) fn keyword(self) -> &'static str {
        match self {
            Self::System => "SYSTEM_TIME",
            Self::Valid => "VALID_TIME",
            Self::Version => "VERSION",
        }
    }
}

/// The version clauses of one relation; at least one is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionClause {
    /// `FOR SYSTEM_TIME AS OF x` and its spellings.
    pub system: Option<Expr>,
    /// `FOR VALID_TIME AS OF x`.
    pub valid: Option<Expr>,
    /// `VERSION AS OF x`: a snapshot's number or a tag's name.
    pub version: Option<Expr>,
}

impl VersionClause {
    fn set(&mut self, clock: Clock, value: Expr) -> Result<()> {
        let slot = match clock {
            Clock::System => &mut self.system,
            Clock::Valid => &mut self.valid,
            Clock::Version => &mut self.version,
        };
        if slot.is_some() {
            return Err(Error::invalid(format!(
                "{} AS OF is given twice for one table",
                clock.keyword()
            )));
        }
        *slot = Some(value);
        Ok(())
    }
}

/// The version clauses of `factor`; `None` when there are none.
///
/// # Errors
/// `InvalidArgument` for a clock given twice, and for clauses that other systems have and we do
/// not: `BEFORE`, `CHANGES`, `AT(OFFSET => ...)`, `AT(STATEMENT => ...)`.
pub fn version_of(factor: &TableFactor) -> Result<Option<VersionClause>> {
    let TableFactor::Table {
        name,
        version: Some(version),
        args,
        ..
    } = factor
    else {
        return Ok(None);
    };
    if args.is_some() {
        return Err(Error::invalid(format!(
            "{name}(...) is a function: give it its times as arguments, not in a version clause"
        )));
    }
    let mut clause = VersionClause::default();
    match version {
        TableVersion::ForSystemTimeAsOf(time) | TableVersion::TimestampAsOf(time) => {
            clause.set(Clock::System, time.clone())?;
        }
        TableVersion::VersionAsOf(version) => clause.set(Clock::Version, version.clone())?,
        TableVersion::Function(function) => read_at(function, &mut clause)?,
        TableVersion::Changes { .. } => {
            return Err(Error::invalid(
                "CHANGES(...) is not supported: the history schema has every version of a table",
            ));
        }
    }
    Ok(Some(clause))
}

fn read_at(function: &Expr, clause: &mut VersionClause) -> Result<()> {
    let Expr::Function(function) = function else {
        return Err(unreadable());
    };
    if !function.name.to_string().eq_ignore_ascii_case("at") {
        return Err(Error::invalid(format!(
            "{}(...) is not supported: use AT(TIMESTAMP => x), which includes x itself",
            function.name
        )));
    }
    let FunctionArguments::List(list) = &function.args else {
        return Err(unreadable());
    };
    // Whatever else a function call may carry would be lost here.
    let plain = function.parameters == FunctionArguments::None
        && function.filter.is_none()
        && function.null_treatment.is_none()
        && function.over.is_none()
        && function.within_group.is_empty()
        && list.duplicate_treatment.is_none()
        && list.clauses.is_empty();
    if !plain || list.args.is_empty() {
        return Err(unreadable());
    }
    for argument in &list.args {
        let FunctionArg::Named {
            name,
            arg: FunctionArgExpr::Expr(value),
            ..
        } = argument
        else {
            return Err(unreadable());
        };
        let clock = match name.value.to_ascii_uppercase().as_str() {
            "TAG" => Clock::Version,
            word => Clock::from_word(word).ok_or_else(|| {
                Error::invalid(format!(
                    "AT({} => ...) is not supported: use AT(TIMESTAMP => x)",
                    name.value
                ))
            })?,
        };
        clause.set(clock, value.clone())?;
    }
    Ok(())
}

fn unreadable() -> Error {
    Error::invalid("a version is written AT(TIMESTAMP => x) or FOR SYSTEM_TIME AS OF x")
}
