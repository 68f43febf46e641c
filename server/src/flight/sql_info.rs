//! `CommandGetSqlInfo`: the whole standard table, since older drivers fail where an entry is
//! missing, and only what is true of this server.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder};
use arrow_flight::sql::{
    CommandGetSqlInfo, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel,
    SqlSupportedCaseSensitivity, SqlSupportedGroupBy, SqlSupportedResultSetConcurrency,
    SqlSupportedResultSetType, SqlSupportedSubqueries, SqlSupportedTransaction, SqlSupportedUnions,
    SqlTransactionIsolationLevel, SupportedSqlGrammar,
};
use datafusion::functions;
use datafusion::logical_expr::ScalarUDF;
use featureflight_catalog::{Error, Result};
use featureflight_engine::EngineOptions;

use super::Service;

/// Words of our dialect that SQL:2003 does not reserve.
const KEYWORDS: [&str; 9] = [
    "ASOF",
    "DESCRIBE",
    "EXPLAIN",
    "LIMIT",
    "MATCH_CONDITION",
    "OFFSET",
    "SHOW",
    "SYSTEM_TIME",
    "VALID_TIME",
];

const NONE: i32 = 0;

pub(super) fn batch(service: &Service, command: CommandGetSqlInfo) -> Result<RecordBatch> {
    service
        .sql_info
        .record_batch(command.info)
        .map_err(|error| Error::internal(format!("GetSqlInfo: {error}")))
}

/// The table, made once. `writes` says whether feature groups can be written and defined.
///
/// # Errors
/// `Internal` when arrow-flight cannot build it.
pub(super) fn table(options: &EngineOptions, writes: bool) -> Result<SqlInfoData> {
    let mut table = SqlInfoDataBuilder::new();
    server(&mut table, writes);
    dialect(&mut table, writes);
    support(&mut table, writes);
    limits(&mut table, options);
    table
        .build()
        .map_err(|error| Error::internal(format!("SqlInfo: {error}")))
}

fn server(table: &mut SqlInfoDataBuilder, writes: bool) {
    use SqlInfo as I;
    table.append(I::FlightSqlServerName, "FeatureFlight");
    table.append(I::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    table.append(I::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    table.append(I::FlightSqlServerReadOnly, !writes);
    table.append(I::FlightSqlServerSql, true);
    table.append(I::FlightSqlServerSubstrait, false);
    table.append(I::FlightSqlServerSubstraitMinVersion, "");
    table.append(I::FlightSqlServerSubstraitMaxVersion, "");
    table.append(
        I::FlightSqlServerTransaction,
        SqlSupportedTransaction::None as i32,
    );
    table.append(I::FlightSqlServerCancel, true);
    // Into temporary tables at least.
    table.append(I::FlightSqlServerBulkIngestion, true);
    table.append(I::FlightSqlServerIngestTransactionsSupported, false);
    // Handles of prepared statements do not expire.
    table.append(I::FlightSqlServerStatementTimeout, 0);
    table.append(I::FlightSqlServerTransactionTimeout, 0);
}

fn dialect(table: &mut SqlInfoDataBuilder, writes: bool) {
    use SqlInfo as I;
    table.append(I::SqlDdlCatalog, false);
    table.append(I::SqlDdlSchema, false);
    table.append(I::SqlDdlTable, writes);
    table.append(
        I::SqlIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32,
    );
    table.append(I::SqlIdentifierQuoteChar, "\"");
    // Quoted names match exactly, for which the standard has no value.
    table.append(
        I::SqlQuotedIdentifierCase,
        SqlSupportedCaseSensitivity::SqlCaseSensitivityUnknown as i32,
    );
    // A group that is being created, or failed, is listed with its reason and cannot be read.
    table.append(I::SqlAllTablesAreSelectable, false);
    table.append(
        I::SqlNullOrdering,
        SqlNullOrdering::SqlNullsSortedHigh as i32,
    );
    table.append(I::SqlKeywords, &KEYWORDS[..]);
    table.append(
        I::SqlNumericFunctions,
        names(&[functions::math::functions()]),
    );
    table.append(
        I::SqlStringFunctions,
        names(&[
            functions::string::functions(),
            functions::unicode::functions(),
            functions::regex::functions(),
        ]),
    );
    table.append(
        I::SqlSystemFunctions,
        names(&[functions::core::functions()]),
    );
    table.append(
        I::SqlDatetimeFunctions,
        names(&[functions::datetime::functions()]),
    );
    table.append(I::SqlSearchStringEscape, "\\");
    table.append(I::SqlExtraNameCharacters, "");
    table.append(I::SqlSchemaTerm, "schema");
    table.append(I::SqlProcedureTerm, "");
    table.append(I::SqlCatalogTerm, "catalog");
    table.append(I::SqlCatalogAtStart, true);
}

fn support(table: &mut SqlInfoDataBuilder, writes: bool) {
    use SqlInfo as I;
    use SqlSupportedSubqueries as S;
    table.append(I::SqlSupportsColumnAliasing, true);
    table.append(I::SqlNullPlusNullIsNull, true);
    // CONVERT(value, TYPE) is not part of the dialect; CAST is.
    table.append(I::SqlSupportsConvert, HashMap::<i32, Vec<i32>>::new());
    table.append(I::SqlSupportsTableCorrelationNames, true);
    table.append(I::SqlSupportsDifferentTableCorrelationNames, false);
    table.append(I::SqlSupportsExpressionsInOrderBy, true);
    table.append(I::SqlSupportsOrderByUnrelated, true);
    table.append(
        I::SqlSupportedGroupBy,
        bits(&[
            SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
            SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
        ]),
    );
    table.append(I::SqlSupportsLikeEscapeClause, true);
    table.append(I::SqlSupportsNonNullableColumns, true);
    table.append(
        I::SqlSupportedGrammar,
        bits(&[
            SupportedSqlGrammar::SqlMinimumGrammar as i32,
            SupportedSqlGrammar::SqlCoreGrammar as i32,
        ]),
    );
    // Entry level asks for UPDATE and transactions.
    table.append(I::SqlAnsi92SupportedLevel, NONE);
    table.append(I::SqlSupportsIntegrityEnhancementFacility, false);
    table.append(
        I::SqlOuterJoinsSupportLevel,
        bits(&[
            SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32,
            SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32,
        ]),
    );
    table.append(I::SqlSchemasSupportedActions, NONE);
    table.append(I::SqlCatalogsSupportedActions, NONE);
    table.append(I::SqlSupportedPositionedCommands, NONE);
    table.append(I::SqlSelectForUpdateSupported, false);
    table.append(I::SqlStoredProceduresSupported, false);
    table.append(
        I::SqlSupportedSubqueries,
        bits(&[
            S::SqlSubqueriesInComparisons as i32,
            S::SqlSubqueriesInExists as i32,
            S::SqlSubqueriesInIns as i32,
        ]),
    );
    table.append(I::SqlCorrelatedSubqueriesSupported, true);
    table.append(
        I::SqlSupportedUnions,
        bits(&[
            SqlSupportedUnions::SqlUnion as i32,
            SqlSupportedUnions::SqlUnionAll as i32,
        ]),
    );
    // Rows of parameters of an INSERT are one write.
    table.append(I::SqlBatchUpdatesSupported, writes);
    transactions(table);
}

fn transactions(table: &mut SqlInfoDataBuilder) {
    use SqlInfo as I;
    // The standard says 32 bits; Apache's JDBC and ODBC drivers read 64.
    table.append(
        I::SqlDefaultTransactionIsolation,
        i64::from(SqlTransactionIsolationLevel::SqlTransactionNone as i32),
    );
    table.append(I::SqlTransactionsSupported, false);
    table.append(
        I::SqlSupportedTransactionsIsolationLevels,
        bits(&[SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
    );
    table.append(I::SqlDataDefinitionCausesTransactionCommit, false);
    table.append(I::SqlDataDefinitionsInTransactionsIgnored, false);
    table.append(
        I::SqlSupportedResultSetTypes,
        bits(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32]),
    );
    let read_only =
        bits(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]);
    table.append(I::SqlSupportedConcurrenciesForResultSetUnspecified, NONE);
    table.append(
        I::SqlSupportedConcurrenciesForResultSetForwardOnly,
        read_only,
    );
    table.append(
        I::SqlSupportedConcurrenciesForResultSetScrollSensitive,
        NONE,
    );
    table.append(
        I::SqlSupportedConcurrenciesForResultSetScrollInsensitive,
        NONE,
    );
    table.append(I::SqlSavepointsSupported, false);
    table.append(I::SqlNamedParametersSupported, false);
    table.append(I::SqlLocatorsUpdateCopy, false);
    table.append(I::SqlStoredFunctionsUsingCallSyntaxSupported, false);
}

/// Zero says that there is no limit, or none that is known.
fn limits(table: &mut SqlInfoDataBuilder, options: &EngineOptions) {
    use SqlInfo as I;
    for unlimited in [
        I::SqlMaxBinaryLiteralLength,
        I::SqlMaxCharLiteralLength,
        I::SqlMaxColumnNameLength,
        I::SqlMaxColumnsInGroupBy,
        I::SqlMaxColumnsInIndex,
        I::SqlMaxColumnsInOrderBy,
        I::SqlMaxColumnsInSelect,
        I::SqlMaxColumnsInTable,
        I::SqlMaxConnections,
        I::SqlMaxCursorNameLength,
        I::SqlMaxIndexLength,
        I::SqlDbSchemaNameLength,
        I::SqlMaxProcedureNameLength,
        I::SqlMaxCatalogNameLength,
        I::SqlMaxRowSize,
        I::SqlMaxStatements,
        I::SqlMaxTableNameLength,
        I::SqlMaxTablesInSelect,
        I::SqlMaxUsernameLength,
    ] {
        table.append(unlimited, 0_i64);
    }
    table.append(I::SqlMaxRowSizeIncludesBlobs, false);
    let longest = i64::try_from(options.max_sql_bytes).unwrap_or(i64::MAX);
    table.append(I::SqlMaxStatementLength, longest);
}

fn bits(ordinals: &[i32]) -> i32 {
    ordinals
        .iter()
        .fold(0, |mask, ordinal| mask | (1 << ordinal))
}

fn names(groups: &[Vec<Arc<ScalarUDF>>]) -> Vec<String> {
    let names: BTreeSet<_> = groups
        .iter()
        .flatten()
        .map(|f| f.name().to_owned())
        .collect();
    names.into_iter().collect()
}
