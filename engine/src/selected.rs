//! How many columns each `SELECT` of a statement lists once its `*` are written out. The SQL planner
//! compares each with all others, in one go that nothing interrupts: twenty thousand, which a join of
//! a few wide groups has, would keep a planning thread for a minute.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableFactor, Value, Visitor,
};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_udf::TempView;
use featureflight_udf::dialect::walk::{walk_query, walk_statement};

/// Of one `SELECT`: two groups of 2,500 features, the most a group may have, and what time adds.
const MAX_SELECTED: u64 = 6_000;

/// Columns that a relation is taken to have which is no table and no query: the server's own have less.
const OTHERS: u64 = 32;

/// Columns of the table of a name in lowercase, of several the most.
type Stored<'a> = &'a dyn Fn(&str) -> Option<usize>;

/// # Errors
/// `ResourceExhausted` for lists whose lengths' squares are more together than that of the longest
/// that may be.
pub(crate) fn check(
    statement: &Statement,
    views: &BTreeMap<String, TempView>,
    stored: Stored<'_>,
) -> Result<()> {
    let mut lists = Lists::new(views, stored);
    match statement {
        Statement::Statement(statement) => walk_statement(statement, &mut lists)?,
        Statement::Explain(explain) => return check(&explain.statement, views, stored),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
    if lists.squares > MAX_SELECTED * MAX_SELECTED {
        return Err(Error::new(
            Kind::ResourceExhausted,
            format!(
                "the statement selects up to {} columns at once when its * are written out, and lists \
                 of that length {} times; planning allows one of {MAX_SELECTED}, or more of shorter \
                 ones: name the columns you need",
                lists.longest,
                lists.squares / lists.longest.pow(2).max(1),
            ),
        ));
    }
    Ok(())
}

/// Measures queries from the inside out.
struct Lists<'a> {
    views: &'a BTreeMap<String, TempView>,
    stored: Stored<'a>,
    /// Columns of the CTEs met so far, by lowercase name. Of several of one name the most.
    ctes: HashMap<String, u64>,
    /// Columns of the `SELECT`s measured already, by address: they are met again inside of others.
    measured: HashMap<*const ast::Select, u64>,
    /// The views met so far; one that is being measured has nothing, so that a circle ends.
    met: HashMap<String, Measured>,
    longest: u64,
    squares: u64,
}

/// What measuring a view came to.
#[derive(Clone, Copy, Default)]
struct Measured {
    columns: u64,
    longest: u64,
    squares: u64,
}

impl<'a> Lists<'a> {
    fn new(views: &'a BTreeMap<String, TempView>, stored: Stored<'a>) -> Self {
        Self {
            views,
            stored,
            ctes: HashMap::new(),
            measured: HashMap::new(),
            met: HashMap::new(),
            longest: 0,
            squares: 0,
        }
    }

    fn query(&mut self, query: &ast::Query) -> u64 {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let columns = self.query(&cte.query);
            let known = self.ctes.entry(cte.alias.name.value.to_lowercase());
            let known = known.or_default();
            *known = columns.max(*known);
        }
        self.body(&query.body)
    }

    fn body(&mut self, body: &SetExpr) -> u64 {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                let (left, right) = (self.body(left), self.body(right));
                left.max(right)
            }
            SetExpr::Values(values) => values.rows.first().map_or(0, |row| row.len() as u64),
            SetExpr::Table(table) => self.named(table.table_name.as_deref().unwrap_or_default()),
            SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) | SetExpr::Merge(_) => 0,
        }
    }

    fn select(&mut self, select: &ast::Select) -> u64 {
        if let Some(known) = self.measured.get(&std::ptr::from_ref(select)) {
            return *known;
        }
        let mut relations = Vec::new();
        for table in &select.from {
            self.table(table, &mut relations);
        }
        let all: u64 = relations.iter().map(|(_, columns)| columns).sum();
        let columns = select.projection.iter().map(|item| match item {
            SelectItem::Wildcard(_) => all,
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), _) => {
                let of = last(of);
                let named = relations.iter().find(|(name, _)| *name == of);
                named.map_or(all, |(_, columns)| *columns)
            }
            _ => 1,
        });
        let columns = columns.fold(0, u64::saturating_add);
        self.measured.insert(std::ptr::from_ref(select), columns);
        self.longest = self.longest.max(columns);
        self.squares = self.squares.saturating_add(columns.saturating_pow(2));
        columns
    }

    /// Adds the relations of a `FROM`'s item, by name and columns.
    fn table(&mut self, table: &ast::TableWithJoins, relations: &mut Vec<(String, u64)>) {
        let joined = table.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&table.relation).chain(joined) {
            self.factor(factor, relations);
        }
    }

    fn factor(&mut self, factor: &TableFactor, relations: &mut Vec<(String, u64)>) {
        let (name, alias, columns) = match factor {
            TableFactor::Table {
                name,
                alias,
                args: None,
                ..
            } => {
                let name = last(name);
                let columns = self.named(&name);
                (name, alias, columns)
            }
            TableFactor::Table {
                alias,
                args: Some(args),
                ..
            } => (String::new(), alias, self.arguments(&args.args)),
            TableFactor::Function { args, alias, .. } => {
                (String::new(), alias, self.arguments(args))
            }
            TableFactor::Derived {
                subquery, alias, ..
            } => (String::new(), alias, self.query(subquery)),
            TableFactor::NestedJoin {
                table_with_joins, ..
            } => return self.table(table_with_joins, relations),
            _ => (String::new(), &None, OTHERS),
        };
        let alias = alias.as_ref().map(|alias| alias.name.value.to_lowercase());
        relations.push((alias.unwrap_or(name), columns));
    }

    /// Columns of a table function: of its queries and of the groups and tables it names.
    fn arguments(&mut self, arguments: &[FunctionArg]) -> u64 {
        let columns = arguments.iter().map(|argument| {
            let (FunctionArg::Named { arg, .. }
            | FunctionArg::ExprNamed { arg, .. }
            | FunctionArg::Unnamed(arg)) = argument;
            match arg {
                FunctionArgExpr::Expr(expr) => self.argument(expr),
                _ => 0,
            }
        });
        columns.fold(OTHERS, u64::saturating_add)
    }

    fn argument(&mut self, argument: &Expr) -> u64 {
        match argument {
            Expr::Subquery(query) => self.query(query),
            Expr::Identifier(name) => self.named(&name.value.to_lowercase()),
            Expr::CompoundIdentifier(names) => {
                let name = names.last().map(|name| name.value.to_lowercase());
                self.named(&name.unwrap_or_default())
            }
            Expr::Value(value) => match &value.value {
                // A feature of a group is one column.
                Value::SingleQuotedString(name) if !name.contains(':') => {
                    let name = name.rsplit('.').next().unwrap_or(name);
                    let stored = (self.stored)(&name.trim_matches('"').to_lowercase());
                    stored.map_or(1, |columns| columns as u64)
                }
                _ => 1,
            },
            Expr::Function(function) => match &function.args {
                ast::FunctionArguments::List(list) => self.arguments(&list.args),
                ast::FunctionArguments::Subquery(query) => self.query(query),
                ast::FunctionArguments::None => 0,
            },
            _ => 0,
        }
    }

    /// Columns of what a name in lowercase means, at most.
    fn named(&mut self, name: &str) -> u64 {
        let cte = self.ctes.get(name).copied();
        let view = self.view(name);
        let stored = (self.stored)(name).map(|columns| columns as u64);
        cte.max(view).max(stored).unwrap_or(OTHERS)
    }

    fn view(&mut self, name: &str) -> Option<u64> {
        let (key, view) = self
            .views
            .iter()
            .find(|(view, _)| view.eq_ignore_ascii_case(name))?;
        let known = self.met.get(key).copied();
        let measured = known.unwrap_or_else(|| self.measure(key, view));
        self.longest = self.longest.max(measured.longest);
        self.squares = self.squares.saturating_add(measured.squares);
        Some(measured.columns)
    }

    fn measure(&mut self, key: &str, view: &TempView) -> Measured {
        self.met.insert(key.to_owned(), Measured::default());
        let mut inside = Self::new(self.views, self.stored);
        inside.met.clone_from(&self.met);
        let columns = inside.query(&view.query);
        // Never breaks.
        let _ = walk_query(&view.query, &mut inside);
        let measured = Measured {
            columns,
            longest: inside.longest,
            squares: inside.squares,
        };
        self.met.extend(inside.met);
        self.met.insert(key.to_owned(), measured);
        measured
    }
}

fn last(name: &ast::ObjectName) -> String {
    let part = name.0.last().and_then(|part| part.as_ident());
    part.map(|part| part.value.to_lowercase())
        .unwrap_or_default()
}

/// Queries inside of expressions are met only this way.
impl Visitor for Lists<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        self.query(query);
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use featureflight_udf::dialect::parse;

    use super::*;

    fn checked(sql: &str, views: &[(&str, &str)]) -> Result<()> {
        let query = |sql: &str| match parse(sql).unwrap() {
            Statement::Statement(statement) => match *statement {
                ast::Statement::Query(query) => query,
                other => panic!("{other}"),
            },
            other => panic!("{other}"),
        };
        let view = |sql: &str| TempView {
            query: query(sql),
            columns: Vec::new(),
            schema: String::new(),
        };
        let views = views
            .iter()
            .map(|(name, sql)| ((*name).to_owned(), view(sql)));
        let stored = |name: &str| (name == "wide").then_some(2_500);
        check(&parse(sql).unwrap(), &views.collect(), &stored)
    }

    const VIEWS: [(&str, &str); 3] = [
        ("three", "SELECT * FROM wide a, wide b, wide c"),
        ("of_three", "SELECT 1 AS one FROM three"),
        ("circle", "SELECT * FROM circle a, circle b"),
    ];

    #[test]
    fn what_two_of_the_widest_groups_have_is_listed() {
        for sql in [
            "SELECT * FROM wide",
            "SELECT *, 1 FROM wide a JOIN features.\"WIDE\" b ON a.id = b.id",
            "SELECT a.*, b.* FROM wide a, wide b, wide c",
            "SELECT count(*) FROM wide a, wide b, wide c, wide d",
            "WITH a AS (SELECT * FROM wide), b AS (SELECT * FROM a) SELECT * FROM b",
            "SELECT * FROM point_in_time_join(TABLE(spine), 'wide', 'wide:a', 'wide:b')",
            "SELECT * FROM circle",
            "SELECT * FROM wide UNION ALL SELECT * FROM wide UNION ALL SELECT * FROM wide",
        ] {
            checked(sql, &VIEWS).expect(sql);
        }
    }

    #[test]
    fn more_is_refused_wherever_it_is_listed() {
        let six = ["SELECT * FROM wide"; 6].join(" UNION ALL ");
        for sql in [
            "SELECT * FROM wide a, wide b, wide c",
            "SELECT a.*, a.*, a.* FROM wide a",
            "SELECT *, * FROM wide a JOIN wide b USING (id)",
            "SELECT count(*) FROM (SELECT * FROM wide a, (wide b CROSS JOIN wide c))",
            "WITH t AS (SELECT * FROM wide a, wide b, wide c) SELECT 1",
            "WITH t AS (SELECT a.* FROM wide a) SELECT * FROM t a, t b, T c",
            "SELECT 1 WHERE EXISTS (SELECT * FROM wide a, wide b, wide c)",
            "SELECT * FROM wide WHERE id IN (SELECT a.id FROM wide a WHERE EXISTS (SELECT * FROM wide, wide, wide))",
            "SELECT * FROM point_in_time_join((SELECT * FROM wide), 'wide', 'features.\"wide\"')",
            "SELECT * FROM point_in_time_join(TABLE(wide), 'wide', history.wide)",
            "SELECT * FROM three",
            "SELECT one FROM of_three",
            "EXPLAIN SELECT * FROM wide a, wide b, wide c",
            &six,
        ] {
            let refused = checked(sql, &VIEWS).expect_err(sql);
            assert_eq!(refused.kind, Kind::ResourceExhausted, "{sql}");
        }
    }
}
