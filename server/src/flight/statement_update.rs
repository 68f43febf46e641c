//! `CommandStatementUpdate`: statements with an effect (`SET`, `USE`, `CREATE TEMP VIEW`, `INSERT`,
//! `DELETE`, ...), from drivers that know them before they send them. And what every update answers.

use arrow::array::RecordBatch;
use arrow_flight::sql::{CommandStatementUpdate, DoPutUpdateResult};
use featureflight_catalog::Result;
use featureflight_engine::Caller;
use featureflight_engine::writes::{Executed, Written};
use prost::Message;
use serde_json::json;

use super::Service;
use super::statement_query::no_transaction;

/// Carries the refused rows of a write that left them out: Flight SQL's own answer is one number.
const REFUSED: &str = "featureflight-refused";

/// Headers have to stay small.
const MAX_REFUSED_BYTES: usize = 3_000;

/// What `DoPut` answers: its one message, and the trailers behind it.
pub(super) struct Put {
    pub(super) message: Vec<u8>,
    pub(super) said_at_end: Vec<(&'static str, String)>,
}

pub(super) async fn do_put(
    service: &Service,
    caller: &Caller,
    command: CommandStatementUpdate,
) -> Result<Put> {
    no_transaction(command.transaction_id.as_deref())?;
    execute(service, caller, &command.query, async { Ok(Vec::new()) }).await
}

/// Runs a statement for its effect.
///
/// # Errors
/// `InvalidArgument` for a query, which is not run; else those of the statement.
pub(super) async fn execute(
    service: &Service,
    caller: &Caller,
    sql: &str,
    bound: impl Future<Output = Result<Vec<RecordBatch>>>,
) -> Result<Put> {
    service.calls.may_begin()?;
    Ok(match service.engine.execute(caller, sql, bound).await? {
        Executed::Session => changed(0),
        Executed::Rows(written) => written_rows(&written),
    })
}

/// The answer of a write.
pub(super) fn written_rows(written: &Written) -> Put {
    let mut put = changed(written.accepted);
    if !written.refused.is_empty() {
        put.said_at_end.push((REFUSED, refused(written)));
    }
    put
}

/// Rows an update changed; statements with an effect on the session change none.
pub(super) fn changed(rows: u64) -> Put {
    let record_count = i64::try_from(rows).unwrap_or(i64::MAX);
    Put {
        message: DoPutUpdateResult { record_count }.encode_to_vec(),
        said_at_end: Vec::new(),
    }
}

/// JSON in ASCII: how many rows, and the first of them with their reasons.
fn refused(written: &Written) -> String {
    let mut listed = Vec::new();
    let mut bytes = 0;
    for refusal in &written.refused.listed {
        let shown = json!({
            "row": refusal.row,
            "column": refusal.column,
            "found": refusal.found,
            "reason": refusal.reason,
        });
        bytes += shown.to_string().len();
        if bytes > MAX_REFUSED_BYTES {
            break;
        }
        listed.push(shown);
    }
    let text = json!({"rows": written.refused.rows, "listed": listed}).to_string();
    let mut ascii = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_ascii() {
            ascii.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            ascii.push_str(&format!("\\u{unit:04x}"));
        }
    }
    ascii
}

#[cfg(test)]
mod tests {
    use featureflight_online::validate::{Refusal, Refusals};

    use super::*;

    #[test]
    fn refused_rows_fit_into_a_header() {
        let refusal = |row| Refusal {
            row,
            column: Some("größe".to_owned()),
            found: "NaN".into(),
            reason: "x".repeat(200).into(),
        };
        let written = Written {
            accepted: 1,
            refused: Refusals {
                listed: (0..100).map(refusal).collect(),
                rows: 500,
            },
        };
        let text = refused(&written);
        assert!(text.is_ascii() && text.len() < 4_000, "{}", text.len());
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read["rows"], 500);
        assert_eq!(read["listed"][3]["row"], 3);
        assert_eq!(read["listed"][0]["column"], "größe");
    }
}
