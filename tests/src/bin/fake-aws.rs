//! The fake SageMaker control plane and Glue as a process, for tests in other languages: it
//! prints its address and runs until it is ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a test that cannot go on fails"
)]

use featureflight_tests::fake_aws::FakeAws;

#[tokio::main]
async fn main() {
    let fake = FakeAws::start().await;
    println!("listening on {}", fake.url());
    std::future::pending::<()>().await;
}
