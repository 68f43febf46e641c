//! What names can mean at one place of a query.

use datafusion::sql::sqlparser::ast::Ident;
use featureflight_catalog::{Error, Result};

/// The column names of a relation or a query's result. Columns without a name of their own are
/// left out: nothing but `DataFusion`'s name for them can refer to them.
#[derive(Debug, Clone, Default)]
pub(super) struct Columns {
    pub(super) names: Vec<String>,
    /// There may be others.
    pub(super) open: bool,
}

impl Columns {
    pub(super) fn known(names: Vec<String>) -> Self {
        Self { names, open: false }
    }

    pub(super) fn unknown() -> Self {
        Self {
            names: vec![],
            open: true,
        }
    }

    pub(super) fn extend(&mut self, other: &Self) {
        self.names.extend_from_slice(&other.names);
        self.open |= other.open;
    }
}

/// One relation of a FROM clause.
#[derive(Debug, Clone)]
pub(super) struct Relation {
    /// What it is called, longest form first; a qualifier may leave out leading parts.
    pub(super) names: Vec<Vec<Ident>>,
    /// How a qualifier that means it is written; `None` leaves qualifiers as typed.
    pub(super) written: Option<Vec<Ident>>,
    pub(super) columns: Columns,
}

impl Relation {
    /// Whether `qualifier` may mean this relation.
    pub(super) fn answers_to(&self, qualifier: &[Ident]) -> bool {
        self.names.iter().any(|name| {
            qualifier.len() <= name.len()
                && qualifier
                    .iter()
                    .rev()
                    .zip(name.iter().rev())
                    .all(|(typed, part)| {
                        matches(typed, &part.value)
                            || (typed.quote_style.is_some() && typed.value == fold(part))
                    })
        })
    }

    fn shown(&self, column: &str) -> String {
        let parts = self.written.as_ref().or(self.names.last());
        let qualifier: String = parts
            .into_iter()
            .flatten()
            .map(|part| format!("{}.", quoted(&part.value, part)))
            .collect();
        format!("{qualifier}{}", quoted(column, &Ident::new(column)))
    }
}

/// Names in sight: the relations of FROM, the columns of the select list where a clause may use
/// them, and the queries around.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scope<'a> {
    pub(super) relations: &'a [Relation],
    pub(super) outputs: &'a [String],
    /// ORDER BY prefers the select list, GROUP BY and HAVING the relations.
    pub(super) outputs_first: bool,
    pub(super) outer: Option<&'a Scope<'a>>,
}

impl<'a> Scope<'a> {
    pub(super) fn new(relations: &'a [Relation], outer: Option<&'a Scope<'a>>) -> Self {
        Self {
            relations,
            outputs: &[],
            outputs_first: false,
            outer,
        }
    }

    /// The spelling of an unqualified column; `None` leaves it as typed.
    pub(super) fn column(&self, name: &Ident) -> Result<Option<String>> {
        if name.quote_style.is_some() {
            return Ok(None);
        }
        if self.outputs_first
            && let Some(found) = self.output(name)?
        {
            return Ok(Some(found));
        }
        if let Some(found) = column_of(self.relations.iter(), name)? {
            return Ok(Some(found));
        }
        if self.relations.iter().any(|relation| relation.columns.open) {
            return Ok(None);
        }
        if !self.outputs_first
            && let Some(found) = self.output(name)?
        {
            return Ok(Some(found));
        }
        self.outer.map_or(Ok(None), |outer| outer.column(name))
    }

    fn output(&self, name: &Ident) -> Result<Option<String>> {
        let candidates = self.outputs.iter().map(String::as_str);
        let found = one_spelling(name, candidates.filter(|output| matches(name, output)))?;
        Ok(found.map(ToOwned::to_owned))
    }

    /// Rewrites a dotted name: a column with or without a qualifier, or a field inside one. The
    /// position of the column's own name; `None` when it was left as typed.
    pub(super) fn compound(&self, parts: &mut Vec<Ident>) -> Result<Option<usize>> {
        let longest = parts.len().saturating_sub(1).min(3);
        for count in (1..=longest).rev() {
            if let Some((relation, spelling)) = self.qualified(&parts[..count], &parts[count])? {
                if let Some(spelling) = spelling {
                    parts[count] = quoted(&spelling, &parts[count]);
                }
                let Some(written) = &relation.written else {
                    return Ok(Some(count));
                };
                parts.splice(..count, written.iter().cloned());
                return Ok(Some(written.len()));
            }
        }
        let Some(first) = parts.first_mut() else {
            return Ok(None);
        };
        let candidates = self.relations.iter();
        if let Some(spelling) = column_of(candidates, first)? {
            *first = quoted(&spelling, first);
            return Ok(Some(0));
        }
        // A name of the innermost query wins, and an open relation may hold it.
        if self
            .relations
            .iter()
            .any(|relation| relation.columns.open && relation.names.is_empty())
        {
            return Ok(None);
        }
        self.outer.map_or(Ok(None), |outer| outer.compound(parts))
    }

    /// The relation that `qualifier.name` is a column of, and the column's spelling if known.
    fn qualified(
        &self,
        qualifier: &[Ident],
        name: &Ident,
    ) -> Result<Option<(&Relation, Option<String>)>> {
        let mut found: Vec<(&Relation, Option<String>)> = Vec::new();
        for relation in self
            .relations
            .iter()
            .filter(|relation| relation.answers_to(qualifier))
        {
            let spelling = column_of(std::iter::once(relation), name)?;
            if spelling.is_some() || relation.columns.open {
                found.push((relation, spelling));
            }
        }
        if let [(first, _), (second, _), ..] = found.as_slice()
            && first.written != second.written
        {
            let forms = [first.shown(&name.value), second.shown(&name.value)].join(" or ");
            return Err(Error::invalid(format!(
                "{} is ambiguous{}: write {forms}",
                dotted(qualifier, name),
                name.span.start
            )));
        }
        Ok(found.into_iter().next())
    }

    /// The relation of `qualifier.*`.
    pub(super) fn relation(&self, qualifier: &[Ident]) -> Result<Option<&Relation>> {
        let mut found = self
            .relations
            .iter()
            .filter(|relation| relation.answers_to(qualifier));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next())
            && first.written != second.written
        {
            let star = Ident::new("*");
            return Err(Error::invalid(format!(
                "{} is ambiguous{}: several tables in FROM are called so, give them aliases",
                dotted(qualifier, &star),
                qualifier
                    .first()
                    .map(|part| part.span.start.to_string())
                    .unwrap_or_default()
            )));
        }
        Ok(first)
    }
}

fn dotted(qualifier: &[Ident], name: &Ident) -> String {
    let mut text: String = qualifier.iter().map(|part| format!("{part}.")).collect();
    text += &name.to_string();
    text
}

/// The one spelling that `name` has among the columns of `relations`.
pub(super) fn column_of<'r>(
    relations: impl Iterator<Item = &'r Relation>,
    name: &Ident,
) -> Result<Option<String>> {
    let mut found: Vec<(&Relation, &String)> = Vec::new();
    for relation in relations {
        for column in relation
            .columns
            .names
            .iter()
            .filter(|column| matches(name, column))
        {
            if !found.iter().any(|(_, spelling)| *spelling == column) {
                found.push((relation, column));
            }
        }
    }
    match found.as_slice() {
        [] => Ok(None),
        [(_, spelling)] => Ok(Some((*spelling).clone())),
        several => {
            let forms: Vec<_> = several
                .iter()
                .map(|(relation, column)| relation.shown(column))
                .collect();
            Err(ambiguous(name, &forms))
        }
    }
}

/// The one spelling among `candidates`, which all match `name`.
pub(super) fn one_spelling<'c>(
    name: &Ident,
    candidates: impl Iterator<Item = &'c str>,
) -> Result<Option<&'c str>> {
    let mut spellings: Vec<&str> = candidates.collect();
    spellings.sort_unstable();
    spellings.dedup();
    match spellings.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        several => {
            let forms: Vec<_> = several
                .iter()
                .map(|spelling| quoted(spelling, name).to_string())
                .collect();
            Err(ambiguous(name, &forms))
        }
    }
}

fn ambiguous(name: &Ident, forms: &[String]) -> Error {
    Error::invalid(format!(
        "{name} is ambiguous{}: write {}",
        name.span.start,
        forms.join(" or ")
    ))
}

/// Whether `typed` means `name`: exactly when quoted, else ignoring case.
pub(super) fn matches(typed: &Ident, name: &str) -> bool {
    if typed.quote_style.is_some() {
        typed.value == name
    } else {
        typed.value.eq_ignore_ascii_case(name)
    }
}

/// What a name that a query makes itself is called, as `DataFusion` folds it.
pub(super) fn fold(name: &Ident) -> String {
    if name.quote_style.is_some() {
        name.value.clone()
    } else {
        name.value.to_ascii_lowercase()
    }
}

/// `name` as a quoted identifier, at the place where `typed` stands.
pub(super) fn quoted(name: &str, typed: &Ident) -> Ident {
    Ident {
        value: name.to_owned(),
        quote_style: Some('"'),
        span: typed.span,
    }
}
