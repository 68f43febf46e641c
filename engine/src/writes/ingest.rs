//! Uploads that append to a feature group.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::sql::sqlparser::ast;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_online::contents::Digester;
use featureflight_online::record::Operation;
use featureflight_udf::Clocks;
use futures::Stream;

use crate::caller::Caller;
use crate::engine::Engine;
use crate::pinning::Scope;
use crate::query::figures::Purpose;
use crate::temp_tables::{IfExists, Target};

use super::{Written, target};

impl Engine {
    /// Writes `rows`, whose columns are named as the group's features, to the group that `into`
    /// names: all of them or, with `SET featureflight.on_error = 'skip'`, the good ones.
    ///
    /// # Errors
    /// `NotFound` for a group that is not there, `AlreadyExists` unless the upload appends, why the
    /// group cannot be written, and `InvalidArgument` that lists the refused rows.
    pub async fn append(
        &self,
        caller: &Caller,
        into: &Target,
        schema: &SchemaRef,
        rows: impl Stream<Item = Result<RecordBatch>>,
    ) -> Result<Written> {
        let name = format!("ingest into {}", into.table);
        let token = self.core.queries.receive(caller.session.label(), &name);
        let entry = Arc::clone(token.entry());
        entry.is_for(Purpose::Write);
        let work = async {
            let mut write = self.appending(caller, into)?;
            write.schema = SchemaRef::clone(schema);
            let contents = Digester::of_rows("");
            write.carry_out(caller, contents, &entry, rows).await
        };
        token.complete(work).await
    }

    fn appending(&self, caller: &Caller, into: &Target) -> Result<super::Write> {
        let path = [&into.catalog, &into.schema].into_iter().flatten();
        let path = path.filter(|part| !part.is_empty()).chain([&into.table]);
        let name: Vec<ast::Ident> = path.map(|part| ast::Ident::with_quote('"', part)).collect();
        let scope = Scope {
            core: Arc::clone(&self.core),
            session: caller.view(),
            parameters: None,
        };
        let ground = scope.ground(Clocks::default());
        let (state, context) = (&ground.state, &ground.context);
        let found = target(&scope, state, context, &name.into(), Operation::Put);
        let write = found.map_err(|error| match error.kind {
            Kind::NotFound => Error::new(
                Kind::NotFound,
                format!(
                    "{}: an upload adds rows to a feature group that is there, or makes a temporary \
                     table when it says so (ADBC's `temporary=True`)",
                    error.message
                ),
            ),
            _ => error,
        })?;
        if into.if_exists == IfExists::Append {
            return Ok(write);
        }
        Err(Error::new(
            Kind::AlreadyExists,
            format!(
                "feature group '{}' exists: append to it, or upload a temporary table",
                write.group.name()
            ),
        ))
    }
}
