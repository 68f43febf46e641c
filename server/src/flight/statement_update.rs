//! `CommandStatementUpdate`: statements with an effect on the session (`SET`, `USE`,
//! `CREATE TEMP VIEW`, ...), from drivers that know them before they send them.

use arrow_flight::sql::CommandStatementUpdate;
use datafusion::scalar::ScalarValue;
use featureflight_catalog::{Error, Result};
use featureflight_engine::Caller;

use super::Service;
use super::statement_query::no_transaction;

pub(super) async fn do_put(
    service: &Service,
    caller: &Caller,
    command: CommandStatementUpdate,
) -> Result<()> {
    no_transaction(command.transaction_id.as_deref())?;
    execute(service, caller, &command.query, None).await
}

/// Runs a statement for its effect.
///
/// # Errors
/// `InvalidArgument` for a query, which is not run; else those of the statement.
pub(super) async fn execute(
    service: &Service,
    caller: &Caller,
    sql: &str,
    parameters: Option<Vec<ScalarValue>>,
) -> Result<()> {
    service.calls.may_begin()?;
    if !service.engine.prepare(caller, sql).await?.is_update {
        return Err(Error::invalid(
            "this statement returns rows; execute it as a query, not as an update",
        ));
    }
    service.engine.pin(caller, sql, parameters).await?;
    Ok(())
}
