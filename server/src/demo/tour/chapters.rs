//! What the tour visits. Each function is one chapter of it: statements, and what must hold of
//! their answers. Numbers come from the warehouse's facts, which were counted while it was made.

use featureflight_catalog::{Error, Result};

use super::super::warehouse::{GroupFacts, Returned, utc};
use super::Tour;

/// A view of the session: one row per order of a day, and whether that customer closed the account
/// within three days.
const LABELS: &str = "\
CREATE OR REPLACE TEMP VIEW labels AS
SELECT o.customer_id, o.event_time AS ts, count(gone.event_time) > 0 AS left_soon
FROM history.orders o
LEFT JOIN history.customers gone
  ON gone.customer_id = o.customer_id AND gone.is_deleted
 AND gone.event_time > o.event_time AND gone.event_time <= o.event_time + INTERVAL '3 days'
WHERE o.event_time >= TIMESTAMP '2026-01-12' AND o.event_time < TIMESTAMP '2026-01-13'
GROUP BY o.customer_id, o.event_time";

pub(super) async fn state(tour: &mut Tour<'_>) -> Result<()> {
    let groups = tour
        .stop(
            "What is there",
            "Feature groups are tables. These three came from DescribeFeatureGroup responses.",
            "SELECT name, record_identifier, event_time, features, description\n\
             FROM system.feature_groups WHERE serving = 'served' ORDER BY name",
        )
        .await?;
    tour.claim(
        groups.rows() == tour.facts.groups.len(),
        "every group is served",
    )?;

    let sizes = tour
        .stop(
            "State: one row per record",
            "`features` (the default schema) resolves versions, duplicates and deletions; `history` \
             has every\nversion that ever reached the store.",
            "SELECT 'customers' AS feature_group,\n\
             \x20      (SELECT count(*) FROM history.customers) AS versions,\n\
             \x20      (SELECT count(*) FROM history.customers WHERE is_deleted) AS tombstones,\n\
             \x20      (SELECT count(*) FROM features.customers) AS records\n\
             UNION ALL\n\
             SELECT 'orders', (SELECT count(*) FROM history.orders),\n\
             \x20      (SELECT count(*) FROM history.orders WHERE is_deleted), (SELECT count(*) FROM orders)\n\
             UNION ALL\n\
             SELECT 'card-risk', (SELECT count(*) FROM history.\"card-risk\"),\n\
             \x20      (SELECT count(*) FROM history.card_risk WHERE is_deleted), (SELECT count(*) FROM card_risk)",
        )
        .await?;
    for row in 0..sizes.rows() {
        let name = sizes.text(row, "feature_group")?;
        let GroupFacts {
            versions,
            tombstones,
            live,
            ..
        } = group(tour, &name)?.clone();
        let answers = [
            ("versions", versions),
            ("tombstones", tombstones),
            ("records", live),
        ];
        for (column, expected) in answers {
            let answer = sizes.integer(row, column)?;
            tour.claim(
                u64::try_from(answer) == Ok(expected),
                &format!("{name} has {expected} {column}, as counted when they were written"),
            )?;
        }
    }
    Ok(())
}

pub(super) async fn system_time(tour: &mut Tour<'_>) -> Result<()> {
    let late = tour
        .stop(
            "What we knew then",
            "The credit bureau's corrections arrive 6 to 30 hours after they were true. Both sides \
             describe\n14 January, noon; the second only with what had arrived by then.",
            "SELECT count(*) AS customers,\n\
             \x20      count(*) FILTER (WHERE known.credit_limit IS DISTINCT FROM seen.credit_limit) AS corrected_later\n\
             FROM customers FOR VALID_TIME AS OF TIMESTAMP '2026-01-14 12:00:00' AS known\n\
             JOIN customers FOR VALID_TIME AS OF TIMESTAMP '2026-01-14 12:00:00'\n\
             \x20              FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-14 12:00:00' AS seen\n\
             \x20 ON known.customer_id = seen.customer_id",
        )
        .await?;
    tour.claim(
        late.integer(0, "corrected_later")? > 0,
        "late rows change what is known of a past moment, and system time hides them",
    )?;

    let explicit = tour
        .ask("SELECT count(*) AS n FROM customers FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-14 12:00:00'")
        .await?;
    tour.stop(
        "A clock for the whole session",
        "Tools that cannot say FOR SYSTEM_TIME set the clock once; it reaches into every query and view.",
        "SET featureflight.system_time = '2026-01-14T12:00:00Z'",
    )
    .await?;
    let session = tour.run("SELECT count(*) AS n FROM customers").await?;
    tour.ask("RESET featureflight.system_time").await?;
    let after = tour.ask("SELECT count(*) AS n FROM customers").await?;
    tour.claim(
        session.integer(0, "n")? == explicit.integer(0, "n")?,
        "the session's clock and the clause give the same state",
    )?;
    let live = group(tour, "customers")?.live;
    tour.claim(
        u64::try_from(after.integer(0, "n")?) == Ok(live),
        "after RESET the present is back",
    )
}

pub(super) async fn both_clocks(tour: &mut Tour<'_>) -> Result<()> {
    let customer = tour
        .facts
        .examples
        .overcharged
        .clone()
        .ok_or_else(|| Error::internal("the warehouse is too small for the tour"))?;
    let versions = tour
        .stop(
            "Two versions of one moment",
            "On 12 January, 12:00 to 14:00, a fault wrote amounts in cents. The next morning the same \
             event times\nwere written again, with the right amounts.",
            &format!(
                "SELECT event_time, last_order_amount, api_invocation_time, write_time\n\
                 FROM history.orders\n\
                 WHERE customer_id = '{customer}' AND event_time >= TIMESTAMP '2026-01-12 12:00:00'\n\
                 \x20 AND event_time < TIMESTAMP '2026-01-12 14:00:00'\n\
                 ORDER BY event_time, write_time"
            ),
        )
        .await?;
    tour.claim(versions.rows() >= 2, "history keeps both")?;
    let seen = tour
        .stop(
            "Both clocks at once",
            "Valid time picks the moment, system time what was known of it: the value a model saw, \
             and the value\nthat was right.",
            &format!(
                "SELECT (SELECT last_order_amount\n\
                 \x20       FROM orders FOR VALID_TIME AS OF TIMESTAMP '2026-01-12 14:00:00'\n\
                 \x20                   FOR SYSTEM_TIME AS OF TIMESTAMP '2026-01-12 18:00:00'\n\
                 \x20       WHERE customer_id = '{customer}') AS the_model_saw,\n\
                 \x20      (SELECT last_order_amount\n\
                 \x20       FROM orders FOR VALID_TIME AS OF TIMESTAMP '2026-01-12 14:00:00'\n\
                 \x20       WHERE customer_id = '{customer}') AS right_was"
            ),
        )
        .await?;
    let (wrong, right) = (seen.real(0, "the_model_saw")?, seen.real(0, "right_was")?);
    tour.claim(
        (wrong - 100.0 * right).abs() < 1e-6,
        "the model saw a hundred times the right amount",
    )
}

pub(super) async fn tombstones(tour: &mut Tour<'_>) -> Result<()> {
    let Returned {
        customer_id,
        left,
        returned,
    } = tour
        .facts
        .examples
        .returned
        .clone()
        .ok_or_else(|| Error::internal("the warehouse is too small for the tour"))?;
    let history = tour
        .stop(
            "Deleted, and back",
            "DeleteRecord writes a tombstone: identifier and event time, the rest null. This customer \
             left and returned.",
            &format!(
                "SELECT event_time, segment, open_tickets, is_deleted FROM history.customers\n\
                 WHERE customer_id = '{customer_id}' ORDER BY event_time DESC"
            ),
        )
        .await?;
    tour.claim(
        history.rows() >= 3,
        "history keeps the tombstone between the lives",
    )?;
    let moment = |micros| utc(micros).format("%Y-%m-%d %H:%M:%S%.6f");
    let count = |alias: &str, micros| {
        format!(
            "(SELECT count(*) FROM customers FOR VALID_TIME AS OF TIMESTAMP '{}'\n\
             \x20       WHERE customer_id = '{customer_id}') AS {alias}",
            moment(micros)
        )
    };
    let there = tour
        .run(&format!(
            "SELECT {},\n       {},\n       {}",
            count("before", left - 1),
            count("while_away", left),
            count("back", returned)
        ))
        .await?;
    let lives = [("before", 1), ("while_away", 0), ("back", 1)];
    let mut right = true;
    for (column, expected) in lives {
        right &= there.integer(0, column)? == expected;
    }
    tour.claim(
        right,
        "the state has the customer before and after, not between",
    )
}

pub(super) async fn training_set(tour: &mut Tour<'_>) -> Result<()> {
    tour.stop(
        "Labels",
        "A training set starts from a spine: keys, times, labels. Here: every order of 12 January, and \
         whether the\ncustomer closed the account within three days.",
        LABELS,
    )
    .await?;
    let spine = tour
        .run("SELECT count(*) AS n, count(*) FILTER (WHERE left_soon) AS leavers FROM labels")
        .await?;
    tour.claim(
        spine.integer(0, "leavers")? > 0,
        "there is something to learn",
    )?;

    let sample = tour
        .stop(
            "The training set",
            "For every row the features as they were at its time, from three groups, one of them keyed \
             by another\nname; nothing older than seven days.",
            &format!("SELECT * FROM {}\nORDER BY ts LIMIT 5", joined("")),
        )
        .await?;
    tour.claim(sample.rows() == 5, "it streams like any table")?;
    let whole = tour
        .run(&format!(
            "SELECT count(*) AS n, count(age) AS with_profile, count(RiskScore) AS with_score,\n\
             \x20      count(*) FILTER (WHERE customers__event_time > ts OR orders__event_time > ts\n\
             \x20                          OR \"card-risk__event_time\" > ts) AS from_the_future,\n\
             \x20      count(*) FILTER (WHERE customers__event_time < ts - INTERVAL '7 days') AS too_old\n\
             FROM {}",
            joined("")
        ))
        .await?;
    let rows = spine.integer(0, "n")?;
    tour.claim(
        whole.integer(0, "n")? == rows,
        "one row per label, neither more nor fewer",
    )?;
    tour.claim(
        whole.integer(0, "from_the_future")? == 0,
        "no value is later than its row's time",
    )?;
    tour.claim(
        whole.integer(0, "too_old")? == 0,
        "no value is older than max_age",
    )?;
    tour.claim(
        whole.integer(0, "with_profile")? > 0,
        "and there are values",
    )
}

/// The point-in-time join of the tour, with one more option.
fn joined(option: &str) -> String {
    format!(
        "point_in_time_join(\n\
         \x20 TABLE(labels),\n\
         \x20 'customers:age', 'customers:segment', 'customers:open_tickets',\n\
         \x20 'orders:orders_7d', 'orders:last_order_amount', 'card_risk:RiskScore',\n\
         \x20 keys => 'card_risk.CustomerId = customer_id',\n\
         \x20 max_age => INTERVAL '7 days',{option}\n\
         \x20 event_times => true)"
    )
}

pub(super) async fn leak(tour: &mut Tour<'_>) -> Result<()> {
    let naive = tour
        .stop(
            "Why not just join the newest values",
            "Because they are from the future. And worse: those who left have no row any more, so \
             `null` alone\nwould predict the label.",
            "SELECT count(*) AS n,\n\
             \x20      count(*) FILTER (WHERE c.event_time > l.ts) AS from_the_future,\n\
             \x20      count(*) FILTER (WHERE l.left_soon) AS leavers,\n\
             \x20      count(*) FILTER (WHERE l.left_soon AND c.customer_id IS NULL) AS leavers_without_a_row\n\
             FROM labels l LEFT JOIN customers c ON c.customer_id = l.customer_id",
        )
        .await?;
    tour.claim(
        naive.integer(0, "from_the_future")? > 0,
        "a naive join leaks the future",
    )?;
    tour.claim(
        naive.integer(0, "leavers_without_a_row")? > 0,
        "and loses those it should learn from",
    )
}

pub(super) async fn by_hand(tour: &mut Tour<'_>) -> Result<()> {
    let hand = tour
        .stop(
            "The same by hand",
            "Without the join one ranks all versions per label with a window function. It must agree.",
            "SELECT count(*) AS n, sum(age) AS ages, sum(open_tickets) AS tickets FROM (\n\
             \x20 SELECT h.age, h.open_tickets, h.is_deleted, row_number() OVER (\n\
             \x20   PARTITION BY l.customer_id, l.ts\n\
             \x20   ORDER BY h.event_time DESC, h.api_invocation_time DESC, h.write_time DESC) AS rank\n\
             \x20 FROM labels l JOIN history.customers h\n\
             \x20   ON h.customer_id = l.customer_id AND h.event_time <= l.ts)\n\
             WHERE rank = 1 AND NOT is_deleted",
        )
        .await?;
    let join = tour
        .run(
            "SELECT count(age) AS n, sum(age) AS ages, sum(open_tickets) AS tickets\n\
             FROM point_in_time_join(TABLE(labels), 'customers:age', 'customers:open_tickets')",
        )
        .await?;
    let mut same = true;
    for column in ["n", "ages", "tickets"] {
        same &= hand.integer(0, column)? == join.integer(0, column)?;
    }
    tour.claim(same, "two ways, one answer")
}

pub(super) async fn known_at(tour: &mut Tour<'_>) -> Result<()> {
    let fault = "ts >= TIMESTAMP '2026-01-12 12:00:00' AND ts < TIMESTAMP '2026-01-12 14:00:00'";
    let sum = |option: &str| {
        format!(
            "SELECT count(*) AS n, sum(last_order_amount) AS amounts FROM {}\nWHERE {fault}",
            joined(option)
        )
    };
    let then = tour
        .stop(
            "The training set of that evening, again",
            "`known_at` rebuilds what could be known at a moment. The evening's set still has the \
             amounts in cents;\ntoday's has them right.",
            &sum("\n  known_at => TIMESTAMP '2026-01-12 18:00:00',"),
        )
        .await?;
    let now = tour.run(&sum("")).await?;
    tour.claim(
        then.integer(0, "n")? == now.integer(0, "n")?,
        "the rows are the same",
    )?;
    let (then, now) = (then.real(0, "amounts")?, now.real(0, "amounts")?);
    tour.claim(
        (then / now - 100.0).abs() < 1e-6,
        "the amounts known that evening are a hundred times today's",
    )
}

pub(super) async fn asof_join(tour: &mut Tour<'_>) -> Result<()> {
    let asof = tour
        .stop(
            "As ASOF JOIN",
            "The same join in the spelling of Snowflake, for those who think in SQL.",
            "SELECT count(*) AS n, count(c.age) AS with_profile, sum(c.age) AS ages\n\
             FROM labels l\n\
             ASOF JOIN features.customers c\n\
             \x20 MATCH_CONDITION (l.ts >= c.event_time) ON l.customer_id = c.customer_id",
        )
        .await?;
    let join = tour
        .ask(
            "SELECT count(*) AS n, count(age) AS with_profile, sum(age) AS ages \
             FROM point_in_time_join(TABLE(labels), 'customers:age')",
        )
        .await?;
    let mut same = true;
    for column in ["n", "with_profile", "ages"] {
        same &= asof.integer(0, column)? == join.integer(0, column)?;
    }
    tour.claim(same, "it agrees with point_in_time_join")
}

pub(super) async fn raw(tour: &mut Tour<'_>) -> Result<()> {
    let raw = tour
        .stop(
            "What Athena would show",
            "The Glue table as it stands: Unix seconds, lowercase names, the store's own columns.",
            "SELECT * FROM sagemaker_featurestore.card_risk_1767492000\n\
             ORDER BY write_time DESC, customerid LIMIT 3",
        )
        .await?;
    tour.claim(raw.rows() == 3, "raw tables are there too")
}

fn group<'a>(tour: &Tour<'a>, name: &str) -> Result<&'a GroupFacts> {
    tour.facts
        .groups
        .get(name)
        .ok_or_else(|| Error::internal(format!("the warehouse has no facts of {name}")))
}
