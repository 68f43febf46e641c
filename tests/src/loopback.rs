//! What the fakes of AWS services have in common: a place on the loopback interface, and a
//! configuration that sends an AWS client there.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Router;
use axum::handler::Handler;

/// A service over HTTP on a free port, until dropped.
#[derive(Debug)]
pub(crate) struct Loopback {
    pub(crate) url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Loopback {
    /// Every request goes to `answer`, with `state` at hand.
    ///
    /// # Panics
    /// When no port can be had.
    pub(crate) async fn serve<S, T>(state: &Arc<S>, answer: impl Handler<T, Arc<S>>) -> Self
    where
        S: Send + Sync + 'static,
        T: 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(Arc::clone(state));
        let server = tokio::spawn(async move {
            axum::serve(listener, router).await.ok();
        });
        Self { url, server }
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What an AWS client needs to talk to `url` instead of AWS.
pub fn sdk_config(url: &str) -> SdkConfig {
    let credentials = Credentials::new("AKIDTEST", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        .build()
}
