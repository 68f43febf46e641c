//! The Glue tables of some databases.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_glue::Client;
use futures::{StreamExt, TryStreamExt};

use super::CONCURRENCY;
use super::call::{Body, CallError, CallResult, Class, pages, take_array};
use crate::source::GlueTable;

const GET_TABLES: &str = "glue:GetTables";

/// All tables of `databases`, and the reasons of databases that cannot be listed.
pub(super) async fn load(
    client: &Client,
    databases: BTreeSet<String>,
) -> CallResult<(Vec<GlueTable>, BTreeMap<String, String>)> {
    let calls: Vec<_> = databases
        .iter()
        .map(|database| list_or_reason(client, database))
        .collect();
    let lists: Vec<_> = futures::stream::iter(calls)
        .buffered(CONCURRENCY)
        .try_collect()
        .await?;
    let mut tables = Vec::new();
    let mut unlisted = BTreeMap::new();
    for (database, list) in databases.into_iter().zip(lists) {
        match list {
            Ok(list) => tables.extend(list),
            Err(reason) => drop(unlisted.insert(database, reason)),
        }
    }
    Ok((tables, unlisted))
}

async fn list_or_reason(
    client: &Client,
    database: &str,
) -> CallResult<Result<Vec<GlueTable>, String>> {
    match list(client, database).await {
        Ok(tables) => Ok(Ok(tables)),
        Err(failed) => match failed.class {
            Class::Away => Err(failed),
            Class::Absent => Ok(Err(format!("Glue database '{database}' does not exist"))),
            _ => Ok(Err(failed.error.message)),
        },
    }
}

async fn list(client: &Client, database: &str) -> CallResult<Vec<GlueTable>> {
    let mut tables = Vec::new();
    let call = async |token| {
        let body = Body::default();
        let request = client.get_tables().database_name(database);
        let request = request.max_results(100).set_next_token(token);
        let outcome = request.customize().interceptor(body.clone()).send().await;
        body.answer(GET_TABLES, outcome)
    };
    pages(GET_TABLES, call, |mut page| {
        for table in take_array(&mut page, "TableList") {
            let table = GlueTable::from_json(table)
                .map_err(|error| CallError::odd_answer(GET_TABLES, error))?;
            tables.push(table);
        }
        Ok(())
    })
    .await?;
    Ok(tables)
}
