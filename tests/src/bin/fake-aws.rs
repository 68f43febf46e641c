//! The fake SageMaker control plane and Glue, and the fake runtime, as a process, for tests in other
//! languages: it prints their addresses and runs until it is ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use featureflight_tests::fake_aws::FakeAws;
use featureflight_tests::fake_runtime::FakeRuntime;

#[tokio::main]
async fn main() {
    let fake = FakeAws::start().await;
    let runtime = FakeRuntime::start().await;
    println!("listening on {}", fake.url());
    println!("the runtime on {}", runtime.url());
    std::future::pending::<()>().await;
}
