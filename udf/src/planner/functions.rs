//! Calls of our table functions as they were written: arguments by position and name, group names
//! inside strings parsed as SQL identifiers, and the columns that follow from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, Value,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use featureflight_catalog::model::FeatureGroup;
use featureflight_catalog::table::FeatureTable;
use featureflight_catalog::{Error, Result};

use super::error::missing;
use super::names::{Names, pick};
use super::point_in_time::PointInTimeCall;
use crate::context::skew_schema;

/// Our table functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    AsOf,
    Latest,
    History,
    Online,
    OnlineSkew,
    PointInTimeJoin,
}

impl Function {
    /// The function `name` calls, ignoring case as all unquoted names do.
    pub(super) fn named(name: &ObjectName) -> Option<Self> {
        let [part] = name.0.as_slice() else {
            return None;
        };
        let name = part.as_ident()?.value.to_lowercase();
        [
            Self::AsOf,
            Self::Latest,
            Self::History,
            Self::Online,
            Self::OnlineSkew,
            Self::PointInTimeJoin,
        ]
        .into_iter()
        .find(|function| function.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AsOf => "as_of",
            Self::Latest => "latest",
            Self::History => "history",
            Self::Online => "online",
            Self::OnlineSkew => "online_skew",
            Self::PointInTimeJoin => "point_in_time_join",
        }
    }

    fn named_arguments(self) -> &'static [&'static str] {
        match self {
            Self::AsOf => &["event_time", "known_at"],
            Self::Latest | Self::Online => &[],
            Self::OnlineSkew => &["sample"],
            Self::History => &["from", "to"],
            Self::PointInTimeJoin => &[
                "event_time",
                "keys",
                "max_age",
                "known_at",
                "known_by",
                "event_times",
                "full_feature_names",
            ],
        }
    }
}

/// The arguments of one call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) function: Function,
    pub(super) positional: Vec<Expr>,
    named: BTreeMap<String, Expr>,
}

impl Call {
    /// # Errors
    /// `InvalidArgument` for a named argument that is unknown or given twice.
    pub(super) fn parse(function: Function, args: &[FunctionArg]) -> Result<Self> {
        let mut call = Self {
            function,
            positional: Vec::new(),
            named: BTreeMap::new(),
        };
        for arg in args {
            match arg {
                FunctionArg::Unnamed(arg) => call.positional.push(value(function, arg)?),
                FunctionArg::Named { name, arg, .. } => {
                    call.add_named(&name.value, value(function, arg)?)?;
                }
                FunctionArg::ExprNamed {
                    name: Expr::Identifier(name),
                    arg,
                    ..
                } => {
                    call.add_named(&name.value, value(function, arg)?)?;
                }
                FunctionArg::ExprNamed { name, .. } => {
                    return Err(Error::invalid(format!(
                        "{}: {name} is not the name of an argument",
                        function.name()
                    )));
                }
            }
        }
        Ok(call)
    }

    fn add_named(&mut self, name: &str, value: Expr) -> Result<()> {
        let name = name.to_lowercase();
        let function = self.function.name();
        let known = self.function.named_arguments();
        if !known.contains(&name.as_str()) {
            return Err(Error::invalid(if known.is_empty() {
                format!("{function} takes no named arguments, {name} was given")
            } else {
                format!(
                    "{function} has no argument {name}; it has: {}",
                    known.join(", ")
                )
            }));
        }
        if self.named.insert(name.clone(), value).is_some() {
            return Err(Error::invalid(format!("{function}: {name} is given twice")));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Expr> {
        self.named.remove(name)
    }

    /// A named argument that is `true` or `false`.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else: the columns of the result depend on it.
    pub(super) fn take_flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name) {
            None => Ok(false),
            Some(Expr::Value(value)) => match value.value {
                Value::Boolean(flag) => Ok(flag),
                other => Err(self.flag_error(name, &other.to_string())),
            },
            Some(other) => Err(self.flag_error(name, &other.to_string())),
        }
    }

    /// A named argument that is a whole number.
    ///
    /// # Errors
    /// `InvalidArgument` for anything else.
    pub(super) fn take_count(&mut self, name: &str) -> Result<Option<usize>> {
        let Some(written) = self.take(name) else {
            return Ok(None);
        };
        let count = match &written {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => number.parse().ok(),
                _ => None,
            },
            _ => None,
        };
        let function = self.function.name();
        count.map(Some).ok_or_else(|| {
            Error::invalid(format!(
                "{function}: {name} is a whole number, not {written}"
            ))
        })
    }

    fn flag_error(&self, name: &str, written: &str) -> Error {
        Error::invalid(format!(
            "{}: {name} must be true or false, not {written}",
            self.function.name()
        ))
    }

    /// The group of [`Function::Online`], which needs no offline store.
    ///
    /// # Errors
    /// As [`Self::group`].
    pub(super) fn online_group(&self, names: &Names<'_>) -> Result<Arc<FeatureGroup>> {
        if let [argument] = self.positional.as_slice()
            && let Some(text) = text(argument)
            && let Some(group) = names.online_only(&text)?
        {
            return Ok(group);
        }
        Ok(Arc::clone(&self.group(names)?.group))
    }

    /// The one positional argument of all but `point_in_time_join`: a feature group.
    ///
    /// # Errors
    /// `InvalidArgument` when there is none or more, `NotFound` for an unknown group.
    pub(super) fn group(&self, names: &Names<'_>) -> Result<Arc<FeatureTable>> {
        let function = self.function.name();
        match self.positional.as_slice() {
            [argument] => one_group(names, function, argument),
            _ => Err(Error::invalid(format!(
                "{function} takes one feature group: {function}('group'{})",
                match self.function.named_arguments() {
                    [] => "",
                    _ => ", name => value, ...",
                }
            ))),
        }
    }
}

fn value(function: Function, arg: &FunctionArgExpr) -> Result<Expr> {
    match arg {
        FunctionArgExpr::Expr(expr) => Ok(expr.clone()),
        other => Err(Error::invalid(format!(
            "{}: {other} is not an argument",
            function.name()
        ))),
    }
}

/// The text of a string argument; an identifier stands for itself.
pub(super) fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Nested(inner) => text(inner),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Some(expr.to_string()),
        _ => None,
    }
}

/// The query of a relation argument.
pub(super) fn subquery(expr: &Expr) -> Option<&Query> {
    match expr {
        Expr::Nested(inner) => subquery(inner),
        Expr::Subquery(query) => Some(query),
        _ => None,
    }
}

/// A path of identifiers and what follows a colon: `schema.group:feature`. `None` when `text` is
/// not that.
pub(super) fn path(text: &str) -> Option<(Vec<Ident>, Option<Ident>)> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().ok()?;
    let mut tokens = tokens
        .into_iter()
        .filter(|token| !matches!(token, Token::Whitespace(_)));
    let mut path = vec![ident(tokens.next()?)?];
    loop {
        match tokens.next() {
            None => return Some((path, None)),
            Some(Token::Period) => path.push(ident(tokens.next()?)?),
            Some(Token::Colon) => {
                let feature = ident(tokens.next()?)?;
                return tokens.next().is_none().then_some((path, Some(feature)));
            }
            Some(_) => return None,
        }
    }
}

fn ident(token: Token) -> Option<Ident> {
    match token {
        Token::Word(word) => Some(match word.quote_style {
            Some(quote) => Ident::with_quote(quote, word.value),
            None => Ident::new(word.value),
        }),
        _ => None,
    }
}

/// `'group'`.
///
/// # Errors
/// As [`group_and_feature`].
pub(super) fn one_group(
    names: &Names<'_>,
    function: &str,
    argument: &Expr,
) -> Result<Arc<FeatureTable>> {
    match group_and_feature(names, function, argument)? {
        (group, None) => Ok(group),
        (_, Some(_)) => Err(Error::invalid(format!(
            "{function} takes a feature group without a feature, not {argument}"
        ))),
    }
}

/// `'group'` or `'group:feature'`, with the feature's position in the definitions. Where the text
/// is no path of identifiers, as a name with a hyphen, it may be the exact name.
///
/// # Errors
/// `NotFound` for an unknown group, `InvalidArgument` for everything else.
pub(super) fn group_and_feature(
    names: &Names<'_>,
    function: &str,
    argument: &Expr,
) -> Result<(Arc<FeatureTable>, Option<usize>)> {
    let Some(text) = text(argument) else {
        return Err(Error::invalid(format!(
            "{function} takes the name of a feature group as a string, not {argument}"
        )));
    };
    match path(&text) {
        Some((path, None)) => Ok((names.group(&path)?, None)),
        Some((path, Some(feature))) => {
            let group = names.group(&path)?;
            let feature = feature_of(&group, &feature)?;
            Ok((group, Some(feature)))
        }
        None => exact(names, &text),
    }
}

fn exact(names: &Names<'_>, text: &str) -> Result<(Arc<FeatureTable>, Option<usize>)> {
    if let Some(group) = names.group_exactly(text) {
        return Ok((group?, None));
    }
    if let Some((group, feature)) = text.split_once(':')
        && !feature.is_empty()
    {
        let group = match (names.group_exactly(group), path(group)) {
            (Some(group), _) => group?,
            (None, Some((path, None))) => names.group(&path)?,
            _ => return Err(not_a_name(text)),
        };
        let quoted = Ident::with_quote('"', feature);
        let feature = match path(feature) {
            Some((path, None)) if path.len() == 1 => feature_of(&group, &path[0])?,
            _ => feature_of(&group, &quoted)?,
        };
        return Ok((group, Some(feature)));
    }
    Err(not_a_name(text))
}

fn not_a_name(text: &str) -> Error {
    Error::invalid(format!(
        "'{text}' is not the name of a feature group: write 'group' or 'group:feature', and a name \
         with other characters than letters, digits and underscores in double quotes"
    ))
}

fn feature_of(group: &FeatureTable, ident: &Ident) -> Result<usize> {
    let definitions = &group.group.feature_definitions;
    let names = definitions
        .iter()
        .map(|definition| definition.feature_name.as_str());
    match pick(ident, "feature", names.clone(), false)? {
        Some(name) => definitions
            .iter()
            .position(|definition| definition.feature_name == name)
            .ok_or_else(|| Error::internal("a picked name that is not there")),
        None => Err(Error::invalid(format!(
            "feature group {}: {}",
            group.name(),
            missing("feature", &ident.value, names)
        ))),
    }
}

/// The columns of a call of one of our functions; `None` for any other function.
pub(super) fn columns(
    names: &Names<'_>,
    name: &str,
    args: &[FunctionArg],
    spine: Option<&[String]>,
) -> Result<Option<Vec<String>>> {
    let name = ObjectName::from(vec![Ident::new(name)]);
    let Some(function) = Function::named(&name) else {
        return Ok(None);
    };
    let call = Call::parse(function, args)?;
    let of = |schema: &arrow::datatypes::Schema| {
        Some(
            schema
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .collect(),
        )
    };
    match function {
        Function::Online => {
            let group = call.online_group(names)?;
            let features = group.feature_definitions.iter();
            let names = features.map(|feature| feature.feature_name.clone());
            Ok(Some(names.collect()))
        }
        Function::AsOf | Function::Latest => Ok(of(&call.group(names)?.state_schema)),
        Function::OnlineSkew => Ok(of(&skew_schema())),
        Function::History => Ok(of(&call.group(names)?.history_schema)),
        Function::PointInTimeJoin => {
            let call = PointInTimeCall::parse(names, call)?;
            let Some(spine) = spine else { return Ok(None) };
            let mut columns = spine.to_vec();
            for group in &call.groups {
                columns.extend(call.column_names(group).into_iter().map(|(_, name)| name));
            }
            Ok(Some(columns))
        }
    }
}
