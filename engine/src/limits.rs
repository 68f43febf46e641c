//! How complicated a plan may be. The text of a statement has its own limits where it is parsed; what
//! CTEs and views multiply shows only in the plan. Optimizing takes time in proportion to a plan's
//! nodes, and running it recurses over its depth on a worker's small stack; so each has a limit that
//! ends in an error, where the process would end otherwise.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::Result as PlanResult;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{self, Visitor};
use featureflight_catalog::{Error, Kind, Result};
use featureflight_udf::TempView;
use featureflight_udf::dialect::walk::{walk_query, walk_statement};

/// Relations a statement reads when each use of a CTE or view counts as what it reads.
const MAX_EXPANDED_RELATIONS: u64 = 512;

/// Columns of the longest list that the statement selects, for all of those relations.
const MAX_EXPANDED_COLUMNS: u64 = 200_000;

/// Relations that one `FROM` joins. Planning writes out the columns of all of them for each one more.
const MAX_JOINED_RELATIONS: usize = 64;

/// Nodes of a logical plan, each use of a CTE or view counted.
const MAX_PLAN_NODES: usize = 10_000;

/// How deep an optimized plan, and an expression in it, may nest. Operators and expressions recurse
/// on the two megabytes of a runtime's worker thread, where unoptimized builds get half as deep
/// again as this before they overflow.
const MAX_PLAN_DEPTH: usize = 100;
const MAX_EXPRESSION_DEPTH: usize = 500;

/// Refuses a statement whose CTEs and views multiply: a dozen that each use the one before twice
/// keep planning busy for minutes, and nothing can interrupt it.
pub(crate) fn check_expansion(
    statement: &Statement,
    views: &BTreeMap<String, TempView>,
) -> Result<()> {
    let mut expansion = Expansion::new(views);
    let relations = match statement {
        Statement::Statement(statement) => {
            expansion.count(|visitor| walk_statement(statement, visitor))
        }
        Statement::Explain(explain) => return check_expansion(&explain.statement, views),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => 0,
    };
    if relations > MAX_EXPANDED_RELATIONS {
        return Err(too_complex(format!(
            "the statement reads more than {MAX_EXPANDED_RELATIONS} relations when its CTEs and \
             views are written out: use each of them less often"
        )));
    }
    if expansion.joined > MAX_JOINED_RELATIONS {
        return Err(too_complex(format!(
            "a FROM joins {} relations, the limit is {MAX_JOINED_RELATIONS}: join some of them in a \
             temporary table first",
            expansion.joined
        )));
    }
    let columns = relations.saturating_mul(expansion.columns);
    if columns > MAX_EXPANDED_COLUMNS {
        return Err(too_complex(format!(
            "the statement has {} columns in a list and reads {relations} relations, which are \
             {columns} columns when all is written out, and the limit is {MAX_EXPANDED_COLUMNS}: \
             select fewer",
            expansion.columns
        )));
    }
    Ok(())
}

fn joined(from: &[ast::TableWithJoins]) -> usize {
    let relations = from.iter().flat_map(|table| {
        let others = table.joins.iter().map(|join| &join.relation);
        std::iter::once(&table.relation).chain(others)
    });
    let of = |relation: &ast::TableFactor| match relation {
        ast::TableFactor::NestedJoin {
            table_with_joins, ..
        } => joined(std::slice::from_ref(table_with_joins)),
        _ => 1,
    };
    relations.map(of).sum()
}

/// Counts relations, CTEs and views by what they read.
struct Expansion<'a> {
    views: &'a BTreeMap<String, TempView>,
    /// What the CTEs met so far read, by lowercase name. Of several of one name the greatest.
    ctes: HashMap<String, u64>,
    /// What views read; one being counted counts as one, so that a circle ends.
    counted: HashMap<String, u64>,
    /// Queries that define a CTE, by address, as the visitor does not say so.
    definitions: HashMap<*const ast::Query, String>,
    /// What each query around the current place reads so far.
    open: Vec<u64>,
    /// The most relations of one `FROM`.
    joined: usize,
    /// The most expressions of one `SELECT`.
    columns: u64,
}

impl<'a> Expansion<'a> {
    fn new(views: &'a BTreeMap<String, TempView>) -> Self {
        Self {
            views,
            ctes: HashMap::new(),
            counted: HashMap::new(),
            definitions: HashMap::new(),
            open: Vec::new(),
            joined: 0,
            columns: 0,
        }
    }

    fn count(&mut self, walk: impl FnOnce(&mut Self) -> Result<()>) -> u64 {
        self.open.push(0);
        // Never breaks.
        let _ = walk(self);
        self.open.pop().unwrap_or(0)
    }

    fn view(&mut self, name: &str) -> Option<u64> {
        if let Some(known) = self.counted.get(name) {
            return Some(*known);
        }
        let views = self.views;
        let (_, view) = views
            .iter()
            .find(|(view, _)| view.eq_ignore_ascii_case(name))?;
        self.counted.insert(name.to_owned(), 1);
        let mut inside = Self::new(views);
        inside.counted.clone_from(&self.counted);
        let reads = inside.count(|visitor| walk_query(&view.query, visitor));
        self.counted.extend(inside.counted);
        self.joined = self.joined.max(inside.joined);
        self.columns = self.columns.max(inside.columns);
        self.counted.insert(name.to_owned(), reads);
        Some(reads)
    }

    fn add(&mut self, reads: u64) {
        if let Some(open) = self.open.last_mut() {
            *open = open.saturating_add(reads);
        }
    }
}

impl Visitor for Expansion<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = cte.alias.name.value.to_lowercase();
            self.definitions
                .insert(std::ptr::from_ref(cte.query.as_ref()), name);
        }
        self.open.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &ast::Query) -> ControlFlow<Error> {
        let reads = self.open.pop().unwrap_or(0);
        match self.definitions.get(&std::ptr::from_ref(query)) {
            Some(name) => {
                let known = self.ctes.entry(name.clone()).or_default();
                *known = (*known).max(reads).max(1);
            }
            None => self.add(reads),
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &ast::Select) -> ControlFlow<Error> {
        self.joined = self.joined.max(joined(&select.from));
        self.columns = self.columns.max(select.projection.len() as u64);
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<Error> {
        let name = relation.0.last().and_then(|part| part.as_ident());
        let name = name
            .map(|name| name.value.to_lowercase())
            .unwrap_or_default();
        let cte = (relation.0.len() == 1)
            .then(|| self.ctes.get(&name).copied())
            .flatten();
        let reads = cte.or_else(|| self.view(&name)).unwrap_or(1);
        self.add(reads);
        ControlFlow::Continue(())
    }
}

/// Refuses plans with too many nodes together, before they are optimized.
pub(crate) fn check_size(plans: &[LogicalPlan]) -> Result<()> {
    let mut nodes = 0_usize;
    for plan in plans {
        let walked = plan.apply_with_subqueries(|_| {
            nodes += 1;
            Ok(if nodes > MAX_PLAN_NODES {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        });
        walked.map_err(crate::error::classify)?;
    }
    if nodes > MAX_PLAN_NODES {
        return Err(too_complex(format!(
            "the query has more than {MAX_PLAN_NODES} steps when its CTEs and views are written \
             out, for each row of parameters: use fewer of them, or fewer set operations"
        )));
    }
    Ok(())
}

/// Refuses an optimized plan that is too deep to run.
pub(crate) fn check_depth(plan: &LogicalPlan) -> Result<()> {
    let depth = plan_depth(plan).map_err(crate::error::classify)?;
    if depth > MAX_PLAN_DEPTH {
        return Err(too_complex(format!(
            "the query nests {depth} steps, the limit is {MAX_PLAN_DEPTH}: split it with temporary \
             tables or simplify it"
        )));
    }
    let mut deepest = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            deepest = deepest.max(expression_depth(expr)?);
            Ok(TreeNodeRecursion::Continue)
        })
    })
    .map_err(crate::error::classify)?;
    if deepest > MAX_EXPRESSION_DEPTH {
        return Err(too_complex(format!(
            "an expression nests {deepest} operators, the limit is {MAX_EXPRESSION_DEPTH}: write \
             long OR chains as IN lists"
        )));
    }
    Ok(())
}

fn plan_depth(plan: &LogicalPlan) -> PlanResult<usize> {
    let mut below = 0;
    for input in plan.inputs() {
        below = below.max(plan_depth(input)?);
    }
    Ok(below + 1)
}

fn expression_depth(expr: &Expr) -> PlanResult<usize> {
    let mut below = 0;
    expr.apply_children(|child| {
        below = below.max(expression_depth(child)?);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(below + 1)
}

fn too_complex(message: String) -> Error {
    Error::new(Kind::ResourceExhausted, message)
}
