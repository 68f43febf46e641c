//! Credentials of `aws-config` for `object_store`, which itself knows no profiles, SSO or caches.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use crate::error::Error;

/// Longer than all tries of one request, which keep the credentials they began with.
const RENEW_BEFORE: Duration = Duration::from_mins(1);
/// For credentials that name no end: profiles may be edited.
const RENEW_EVERY: Duration = Duration::from_mins(15);
/// Between two attempts, so that a short-lived answer or a failing provider is not asked for
/// every request.
const PAUSE: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks an SDK provider, one request at a time, and keeps the answer until shortly before its end.
#[derive(Debug)]
pub(super) struct SdkCredentials {
    provider: SharedCredentialsProvider,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Current>,
    /// When to ask again, and the newest failure if the last answer was one.
    ask_at: Option<SystemTime>,
    failure: Option<Error>,
}

#[derive(Debug)]
struct Current {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
}

impl SdkCredentials {
    pub(super) fn new(provider: SharedCredentialsProvider) -> Self {
        Self {
            provider,
            state: Mutex::default(),
        }
    }

    async fn ask(&self) -> Result<Credentials, Error> {
        let asked = tokio::time::timeout(TIMEOUT, self.provider.provide_credentials()).await;
        let why = match asked {
            Ok(Ok(credentials)) => return Ok(credentials),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                format!("{error}{}", cause.unwrap_or_default())
            }
            Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
        };
        Err(Error::unavailable(format!(
            "no AWS credentials to read S3 with ({why}): check the profile, the environment or \
             the role of the server"
        )))
    }

    async fn get(&self, now: SystemTime) -> Result<Arc<AwsCredential>, Error> {
        let mut state = self.state.lock().await;
        if state.ask_at.is_none_or(|at| now >= at) {
            match self.ask().await {
                Ok(credentials) => {
                    state.ask_at = Some(next_ask(&credentials, now));
                    state.failure = None;
                    state.current = Some(Current::from(&credentials));
                }
                Err(error) => {
                    tracing::warn!(%error, "AWS credentials could not be renewed");
                    state.ask_at = Some(now + PAUSE);
                    state.failure = Some(error);
                }
            }
        }
        let current = state.current.as_ref();
        match current.filter(|current| current.expires.is_none_or(|end| now < end)) {
            Some(current) => Ok(Arc::clone(&current.credential)),
            None => Err(state.failure.clone().unwrap_or_else(|| {
                Error::unavailable("the AWS credentials to read S3 with have expired")
            })),
        }
    }
}

fn next_ask(credentials: &Credentials, now: SystemTime) -> SystemTime {
    match credentials.expiry() {
        Some(end) => (end - RENEW_BEFORE).max(now + PAUSE),
        None => now + RENEW_EVERY,
    }
}

impl From<&Credentials> for Current {
    fn from(credentials: &Credentials) -> Self {
        let credential = AwsCredential {
            key_id: credentials.access_key_id().to_owned(),
            secret_key: credentials.secret_access_key().to_owned(),
            token: credentials.session_token().map(str::to_owned),
        };
        Self {
            credential: Arc::new(credential),
            expires: credentials.expiry(),
        }
    }
}

#[async_trait]
impl CredentialProvider for SdkCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.get(SystemTime::now())
            .await
            .map_err(|error| object_store::Error::Generic {
                store: "S3",
                source: Box::new(error),
            })
    }
}

#[cfg(test)]
mod tests;
