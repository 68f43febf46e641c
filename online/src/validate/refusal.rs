//! Refused rows: which, in which column, what was found and why it cannot be written.

use std::borrow::Cow;
use std::fmt;

use arrow::array::Array;
use serde::{Deserialize, Serialize};

/// Refusals that are listed; the rest are counted.
pub const MAX_LISTED: usize = 100;

/// Why one value of one row is refused. Never holds the value itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Position in the request, from 0.
    pub row: u64,
    /// `None` when the row as a whole is refused.
    pub column: Option<String>,
    /// What was found: `null`, `NaN`, `text`, ...
    pub found: Cow<'static, str>,
    /// Why it cannot be written, as a clause.
    pub reason: Cow<'static, str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {}", self.row)?;
        if let Some(column) = &self.column {
            write!(f, ", column '{column}'")?;
        }
        write!(f, ": {}: {}", self.found, self.reason)
    }
}

/// The refused rows of a request: the first [`MAX_LISTED`] reasons and the number of rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusals {
    /// In the order of rows; a row may have several.
    pub listed: Vec<Refusal>,
    /// Rows refused, listed or not.
    pub rows: u64,
}

impl Refusals {
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds what is wrong with a batch whose first row is row `first` of the request.
    pub(super) fn add(&mut self, first: u64, mut wrong: Wrong) {
        self.rows += wrong.refused;
        wrong.listed.sort_by_key(|refusal| refusal.row);
        let room = MAX_LISTED.saturating_sub(self.listed.len());
        let listed = wrong.listed.into_iter().take(room);
        self.listed.extend(listed.map(|refusal| Refusal {
            row: first + refusal.row,
            ..refusal
        }));
    }
}

/// One line per listed refusal, then how many rows there are.
impl fmt::Display for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = if self.rows == 1 { "row" } else { "rows" };
        write!(f, "{} {rows} refused", self.rows)?;
        for refusal in &self.listed {
            write!(f, "\n  {refusal}")?;
        }
        let listed: std::collections::BTreeSet<u64> =
            self.listed.iter().map(|refusal| refusal.row).collect();
        let more = self.rows - (listed.len() as u64).min(self.rows);
        if more > 0 {
            write!(f, "\n  and {more} more")?;
        }
        Ok(())
    }
}

/// What is wrong with the rows of one batch.
#[derive(Debug)]
pub(super) struct Wrong {
    good: Vec<bool>,
    refused: u64,
    column: Option<String>,
    /// The first [`MAX_LISTED`] of every column: which rows come first is known at the end.
    listed: Vec<Refusal>,
    listed_of_column: usize,
}

impl Wrong {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            good: vec![true; rows],
            refused: 0,
            column: None,
            listed: Vec::new(),
            listed_of_column: 0,
        }
    }

    /// What follows is about this column.
    pub(super) fn set_column(&mut self, name: &str) {
        self.column = Some(name.to_owned());
        self.listed_of_column = 0;
    }

    /// What follows is about whole rows.
    pub(super) fn set_rows(&mut self) {
        self.column = None;
        self.listed_of_column = 0;
    }

    pub(super) fn refuse(
        &mut self,
        row: usize,
        found: impl Into<Cow<'static, str>>,
        reason: impl Into<Cow<'static, str>>,
    ) {
        if std::mem::replace(&mut self.good[row], false) {
            self.refused += 1;
        }
        if self.listed_of_column < MAX_LISTED {
            self.listed_of_column += 1;
            self.listed.push(Refusal {
                row: row as u64,
                column: self.column.clone(),
                found: found.into(),
                reason: reason.into(),
            });
        }
    }

    pub(super) fn refuse_nulls(&mut self, values: &dyn Array, reason: &'static str) {
        // A column without a type says of none of its rows that it is null.
        let Some(nulls) = values
            .logical_nulls()
            .filter(|nulls| nulls.null_count() > 0)
        else {
            return;
        };
        for row in (0..values.len()).filter(|row| nulls.is_null(*row)) {
            self.refuse(row, "null", reason);
        }
    }

    pub(super) fn is_good(&self, row: usize) -> bool {
        self.good[row]
    }

    pub(super) fn good(&self) -> Vec<bool> {
        self.good.clone()
    }
}
