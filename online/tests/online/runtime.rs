//! What the scripted SageMaker runtime's answers mean for records, call by call.

use std::collections::HashSet;
use std::time::Duration;

use featureflight_catalog::Kind;
use featureflight_online::record::Operation;
use featureflight_online::store::sagemaker::SageMakerStore;
use featureflight_online::store::{OnlineStore, Outcome, Trouble};

use super::model::{Write, layout};
use crate::fake_runtime::{FakeRuntime, Faults};

async fn start() -> (FakeRuntime, SageMakerStore) {
    let fake = FakeRuntime::start().await;
    fake.add_group("orders", "id", "ts");
    let store = SageMakerStore::new(&fake.sdk_config(), Duration::from_millis(700), 8);
    (fake, store)
}

async fn send(store: &SageMakerStore, group: &str, count: i64) -> Vec<Outcome> {
    let records: Vec<_> = (0..count)
        .map(|at| Write::put(&format!("id/{at}"), 10, at).record(group))
        .collect();
    store.write(&records).await
}

#[tokio::test]
async fn one_poisoned_entry_is_refused_alone() {
    let (fake, store) = start().await;
    fake.set_faults(Faults {
        poison: HashSet::from(["id/3".to_owned()]),
        ..Faults::default()
    });
    let outcomes = send(&store, "orders", 10).await;
    for (at, outcome) in outcomes.iter().enumerate() {
        match outcome {
            Outcome::Refused(reason) if at == 3 => assert!(reason.starts_with("ValidationError:")),
            outcome => assert_eq!((at == 3, outcome), (false, &Outcome::Done)),
        }
    }
    assert_eq!(fake.calls("BatchWriteRecord"), 1);
}

#[tokio::test]
async fn unknown_groups_are_refused() {
    let (_fake, store) = start().await;
    for outcome in send(&store, "nothing", 2).await {
        assert!(
            matches!(&outcome, Outcome::Refused(reason) if reason.contains("Resource Not Found")),
            "{outcome:?}"
        );
    }
    let error = store
        .get(&layout("nothing", Operation::Put), &["a".to_owned()])
        .await
        .expect_err("no such group");
    assert_eq!(error.kind, Kind::FailedPrecondition);
}

#[tokio::test]
async fn without_batches_records_go_one_by_one_and_stay_so() {
    for faults in [
        Faults {
            without_batches: true,
            ..Faults::default()
        },
        Faults {
            batches_denied: true,
            ..Faults::default()
        },
    ] {
        let (fake, store) = start().await;
        fake.set_faults(faults);
        assert_eq!(send(&store, "orders", 5).await, vec![Outcome::Done; 5]);
        assert_eq!(store.limit().records, 1);
        send(&store, "orders", 5).await;
        assert_eq!(
            (fake.calls("BatchWriteRecord"), fake.calls("PutRecord")),
            (1, 10)
        );
    }
}

#[tokio::test]
async fn trouble_is_told_apart_from_refusal() {
    let cases: [(Faults, Trouble); 6] = [
        (
            Faults {
                away: true,
                ..Faults::default()
            },
            Trouble::Away,
        ),
        (
            Faults {
                unanswered: 1.0,
                ..Faults::default()
            },
            Trouble::Away,
        ),
        (
            Faults {
                broken: 1.0,
                ..Faults::default()
            },
            Trouble::Away,
        ),
        (
            Faults {
                throttled: 1.0,
                ..Faults::default()
            },
            Trouble::Throttled,
        ),
        (
            Faults {
                unprocessed: 1.0,
                ..Faults::default()
            },
            Trouble::Throttled,
        ),
        (
            Faults {
                credentials_expired: true,
                ..Faults::default()
            },
            Trouble::Denied,
        ),
    ];
    for (faults, expected) in cases {
        let (fake, store) = start().await;
        fake.set_faults(faults.clone());
        for outcome in send(&store, "orders", 3).await {
            assert!(
                matches!(&outcome, Outcome::Retry(trouble, _) if *trouble == expected),
                "{faults:?}: {outcome:?}"
            );
        }
        // One call, or one more each to tell refused batches from refused credentials: no retries.
        assert!(fake.all_calls() <= 4, "{} calls", fake.all_calls());
    }
    drop(start().await.0);
    let (fake, store) = start().await;
    drop(fake);
    let outcome = send(&store, "orders", 1).await.remove(0);
    assert!(
        matches!(outcome, Outcome::Retry(Trouble::Away, _)),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn reads_go_on_until_every_identifier_was_looked_at() {
    let (fake, store) = start().await;
    for chunk in 0..8 {
        let records: Vec<_> = (0..25)
            .map(|at| Write::put(&format!("id/{}", chunk * 25 + at), 10, at).record("orders"))
            .collect();
        store.write(&records).await;
    }
    let identifiers: Vec<String> = (0..200).map(|at| format!("id/{at}")).collect();
    let group = layout("orders", Operation::Put);
    fake.set_faults(Faults {
        unprocessed: 0.2,
        ..Faults::default()
    });
    let found = store.get(&group, &identifiers).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    fake.set_faults(Faults {
        unprocessed: 1.0,
        ..Faults::default()
    });
    let error = store
        .get(&group, &identifiers)
        .await
        .expect_err("never whole");
    assert_eq!(error.kind, Kind::Unavailable);
}
