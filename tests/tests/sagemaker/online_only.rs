//! A group of SageMaker with an online store alone: written and looked up, without a state.

use std::time::Duration;

use featureflight_catalog::Kind;
use serde_json::json;

use super::rig::Rig;

async fn rig() -> Rig {
    let mut rig = Rig::start().await;
    let group = json!({
        "FeatureGroupName": "live-scores",
        "RecordIdentifierFeatureName": "id",
        "EventTimeFeatureName": "at",
        "FeatureDefinitions": [
            {"FeatureName": "id", "FeatureType": "Integral"},
            {"FeatureName": "at", "FeatureType": "String"},
            {"FeatureName": "score", "FeatureType": "Fractional"},
        ],
        "FeatureGroupStatus": "Created",
        "OnlineStoreConfig": {"EnableOnlineStore": true},
    });
    let groups = rig.dir.path().join("feature-groups");
    std::fs::write(groups.join("live.json"), group.to_string()).unwrap();
    let mut neither = group.clone();
    neither["FeatureGroupName"] = "neither".into();
    neither["OnlineStoreConfig"]["EnableOnlineStore"] = false.into();
    std::fs::write(groups.join("neither.json"), neither.to_string()).unwrap();
    rig.fake.add_group("live-scores", "id", "at");
    rig.restart(Duration::from_millis(50), Duration::from_hours(1))
        .await;
    rig
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_written_and_looked_up() {
    let rig = rig().await;
    rig.sql("INSERT INTO live_scores VALUES (7, '2026-01-02', 0.5), (8, '2026-01-02', 1.5)")
        .await;
    rig.sent().await;
    let seven = "SELECT score FROM online('live-scores') WHERE id = 7";
    assert_eq!(rig.sql(seven).await, ["0.5"]);
    assert_eq!(
        rig.sql("SELECT id FROM online('Live_Scores') WHERE id IN (8, 9)")
            .await,
        ["8"]
    );
    let early = "DELETE FROM \"live-scores\" WHERE id = 7 AND at = '2026-01-01'";
    let refused = rig.try_sql(early).await.unwrap_err();
    assert_eq!(refused.kind, Kind::InvalidArgument, "{refused}");
    rig.sql("DELETE FROM \"live-scores\" WHERE id = 7").await;
    rig.sent().await;
    assert!(rig.sql(seven).await.is_empty());
    let listed = "SELECT name, serving FROM system.feature_groups ORDER BY name";
    let wanted = [
        "live-scores|online only: it has no offline store",
        "neither|it has no offline store",
        "scores|served",
    ];
    assert_eq!(rig.sql(listed).await, wanted);
    let waiting = "SELECT waiting_offline FROM system.writes WHERE feature_group = 'live-scores'";
    assert_eq!(rig.sql(waiting).await, ["0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_needs_files_says_where_the_records_are() {
    let rig = rig().await;
    for sql in [
        "SELECT * FROM live_scores",
        "SELECT * FROM history.live_scores",
        "SELECT * FROM latest('live-scores')",
        "SELECT * FROM online_skew('live-scores')",
        "SELECT * FROM point_in_time_join((SELECT 7 AS id, now() AS ts), 'live_scores')",
    ] {
        let refused = rig.try_sql(sql).await.unwrap_err();
        assert_eq!(refused.kind, Kind::FailedPrecondition, "{sql}: {refused}");
        let hint = "online('live-scores')";
        assert!(refused.message.contains(hint), "{sql}: {refused}");
    }
    for sql in [
        "OPTIMIZE TABLE live_scores",
        "INSERT INTO neither VALUES (7, '2026-01-02', 0.5)",
        "SELECT * FROM online('neither') WHERE id = 7",
    ] {
        let refused = rig.try_sql(sql).await.unwrap_err();
        assert_eq!(refused.kind, Kind::FailedPrecondition, "{sql}: {refused}");
    }
    let listed = "SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%live%'";
    assert!(rig.sql(listed).await.is_empty());
}
