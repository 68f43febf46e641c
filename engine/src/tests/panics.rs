//! A panic of an expression, on the task of a run and on those its operators start: a status of its
//! query, and of nobody else's.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{Volatility, create_udf};
use featureflight_catalog::Kind;

use super::server;

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_of_an_expression_ends_its_query_alone() {
    let mut server = server().await;
    let engine = Arc::get_mut(&mut server.engine).expect("nobody else has it");
    let core = Arc::get_mut(&mut engine.core).expect("nor that");
    let buggy = create_udf(
        "buggy",
        vec![DataType::Int64],
        DataType::Int64,
        Volatility::Volatile,
        Arc::new(|_| panic!("a bug in a function")),
    );
    core.base.register_udf(Arc::new(buggy)).unwrap();
    for sql in [
        "SELECT buggy(value) FROM range(10)",
        "SELECT buggy(value), count(*) FROM range(100000) GROUP BY 1",
        "SELECT * FROM range(100000) ORDER BY buggy(value)",
        "SELECT * FROM range(10) a JOIN range(10) b ON a.value = buggy(b.value)",
        "SELECT age FROM history.customers WHERE buggy(age) > 1",
        "SELECT sum(buggy(value)) OVER (PARTITION BY value) FROM range(10)",
    ] {
        let run = tokio::time::timeout(std::time::Duration::from_secs(60), server.error(sql));
        let error = run.await.expect("it ends");
        assert_eq!(error.kind, Kind::Internal, "{sql}: {error}");
    }
    assert_eq!(server.lines("SELECT 1").await, ["1"]);
    let free = server.engine.core.admission.free();
    assert_eq!(free, server.engine.options.max_running_queries, "places");
}
