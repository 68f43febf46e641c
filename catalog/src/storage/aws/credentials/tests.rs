use std::sync::atomic::{AtomicUsize, Ordering};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use parking_lot::Mutex as SyncMutex;

use super::*;

/// Answers with what the test put there.
#[derive(Debug, Clone, Default)]
struct Scripted {
    asked: Arc<AtomicUsize>,
    answer: Arc<SyncMutex<Option<Credentials>>>,
}

impl Scripted {
    fn set(&self, key: &str, expiry: Option<SystemTime>) {
        let credentials = Credentials::new(key, "secret", Some("token".into()), expiry, "test");
        *self.answer.lock() = Some(credentials);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl ProvideCredentials for Scripted {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().clone();
        future::ProvideCredentials::ready(
            answer.ok_or_else(|| CredentialsError::not_loaded("nothing here")),
        )
    }
}

fn scripted() -> (Scripted, SdkCredentials) {
    let script = Scripted::default();
    let credentials = SdkCredentials::new(SharedCredentialsProvider::new(script.clone()));
    (script, credentials)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn credentials_are_kept_until_shortly_before_they_end() {
    let (script, credentials) = scripted();
    let now = SystemTime::UNIX_EPOCH + seconds(1_000_000);
    script.set("one", Some(now + seconds(3_600)));
    for later in [0, 100, 3_539] {
        let credential = credentials
            .get(now + seconds(later))
            .await
            .expect("credential");
        assert_eq!((credential.key_id.as_str(), script.asked()), ("one", 1));
        assert_eq!(credential.token.as_deref(), Some("token"));
    }
    script.set("two", Some(now + seconds(7_200)));
    let credential = credentials
        .get(now + seconds(3_541))
        .await
        .expect("credential");
    assert_eq!((credential.key_id.as_str(), script.asked()), ("two", 2));
}

#[tokio::test]
async fn credentials_without_an_end_are_asked_for_again() {
    let (script, credentials) = scripted();
    let now = SystemTime::UNIX_EPOCH + seconds(1_000_000);
    script.set("one", None);
    credentials.get(now).await.expect("credential");
    credentials
        .get(now + seconds(899))
        .await
        .expect("credential");
    assert_eq!(script.asked(), 1);
    credentials
        .get(now + seconds(900))
        .await
        .expect("credential");
    assert_eq!(script.asked(), 2);
}

#[tokio::test]
async fn valid_credentials_outlive_a_failing_provider() {
    let (script, credentials) = scripted();
    let now = SystemTime::UNIX_EPOCH + seconds(1_000_000);
    script.set("one", Some(now + seconds(3_600)));
    credentials.get(now).await.expect("credential");
    *script.answer.lock() = None;
    let credential = credentials
        .get(now + seconds(3_550))
        .await
        .expect("still valid");
    assert_eq!((credential.key_id.as_str(), script.asked()), ("one", 2));
    let error = credentials
        .get(now + seconds(3_600))
        .await
        .expect_err("expired");
    assert_eq!(error.kind, crate::Kind::Unavailable);
    assert!(error.message.contains("nothing here"), "{error}");
    assert_eq!(script.asked(), 3);
    // Requests that come right after share the failure.
    credentials
        .get(now + seconds(3_601))
        .await
        .expect_err("expired");
    assert_eq!(script.asked(), 3);
    script.set("two", None);
    credentials
        .get(now + seconds(3_602))
        .await
        .expect("renewed");
}
