//! Rows of bound parameters as rows of an `INSERT`: what `executemany` sends.

use std::sync::Arc;

use arrow::array::RecordBatch;
use featureflight_catalog::{Error, Result};
use featureflight_online::contents::Digester;

use crate::caller::Caller;
use crate::engine::{Core, Engine};
use crate::parameters::values;
use crate::pinning::{Scope, parse};
use crate::query::figures::Purpose;
use crate::session::SessionView;
use crate::statement::Command;

use super::insert::Insertion;
use super::{Write, Written};

/// What executing a statement with bound rows did.
#[derive(Debug)]
pub enum Executed {
    /// It changed the session.
    Session,
    Rows(Written),
}

impl Engine {
    /// Runs a statement for its effect, once, with the rows of `bound` as its parameters: several
    /// only for an `INSERT`, of which all rows together are one write. `bound` is waited for when
    /// the statement is known to have an effect: a query is refused before its rows are received.
    ///
    /// # Errors
    /// `InvalidArgument` for a query, which is not run, and for rows that the statement does not
    /// take; else those of the statement.
    pub async fn execute(
        self: &Arc<Self>,
        caller: &Caller,
        sql: &str,
        bound: impl Future<Output = Result<Vec<RecordBatch>>>,
    ) -> Result<Executed> {
        if !self.prepare(caller, sql).await?.is_update {
            return Err(Error::invalid(
                "this statement returns rows; execute it as a query, not as an update",
            ));
        }
        let bound = bound.await?;
        let rows: usize = bound.iter().map(RecordBatch::num_rows).sum();
        // Columns without rows are not nothing: they are no row to write.
        if rows > 1 || (rows == 0 && !bound.is_empty()) {
            return self
                .insert_bound(caller, sql, bound)
                .await
                .map(Executed::Rows);
        }
        let pinned = self.pin(caller, sql, values(&bound)?).await?;
        Ok(match &pinned.written {
            Some(written) => Executed::Rows(written.clone()),
            None => Executed::Session,
        })
    }

    async fn insert_bound(
        &self,
        caller: &Caller,
        sql: &str,
        bound: Vec<RecordBatch>,
    ) -> Result<Written> {
        let token = self.core.queries.receive(caller.session.label(), sql);
        let entry = Arc::clone(token.entry());
        entry.is_for(Purpose::Write);
        let (core, view, text) = (Arc::clone(&self.core), caller.view(), sql.to_owned());
        let schema = bound.first().map(RecordBatch::schema);
        let work = async {
            let planned = self.core.planning.run(
                self.planning_limit(Some(caller)),
                &caller.session.plans,
                move || std::future::ready(plan(core, view, &text)),
            );
            let (names, mut write, parameters) = planned.await?;
            let width = schema.map_or(0, |schema| schema.fields().len());
            if let Some(beyond) = parameters.iter().find(|at| **at >= width) {
                return Err(Error::invalid(format!(
                    "parameter ${} is not bound: the rows have {width} values",
                    beyond + 1
                )));
            }
            let project =
                |batch: &RecordBatch| batch.project(&parameters).map_err(crate::error::internal);
            let rows = bound.iter().map(project).collect::<Result<Vec<_>>>()?;
            let types = rows.first().map(RecordBatch::schema);
            let types = types.iter().flat_map(|schema| schema.fields());
            write.name_columns(names, types.map(|field| field.data_type().clone()));
            let rows = futures::stream::iter(rows.into_iter().map(Ok));
            let contents = Digester::of_rows(sql);
            write.carry_out(caller, contents, &entry, rows).await
        };
        token.complete(work).await
    }
}

fn plan(
    core: Arc<Core>,
    session: SessionView,
    sql: &str,
) -> Result<(Vec<String>, Write, Vec<usize>)> {
    let command = parse(&core, sql)?;
    let scope = Scope {
        core,
        session,
        parameters: None,
    };
    match command {
        Command::Insert(insert) => Insertion::new(*insert)?.of_parameters(&scope),
        _ => Err(Error::invalid(
            "several rows of parameters are bound, or none, which only INSERT takes: bind one row at a \
             time",
        )),
    }
}
