//! Which token names which session, and when it ends.

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const SOON: Duration = Duration::from_nanos(1);

#[test]
fn a_bearer_names_one_session_and_nothing_else_does() {
    let sessions = Sessions::new(HOUR, 10);
    let token = sessions.issue_bearer().expect("a bearer");
    let first = sessions.by_token(&token).expect("known");
    assert!(Arc::ptr_eq(
        &first,
        &sessions.by_token(&token).expect("known")
    ));
    for stranger in ["", "x", &token.to_uppercase()] {
        let error = sessions.by_token(stranger).expect_err("unknown");
        assert_eq!(error.kind, Kind::Unauthenticated);
    }
    let other = sessions.issue_bearer().expect("a bearer");
    assert!(!Arc::ptr_eq(
        &first,
        &sessions.by_token(&other).expect("known")
    ));
}

#[test]
fn a_connections_session_lives_as_long_as_it() {
    let sessions = Sessions::new(SOON, 10);
    let found = sessions.by_connection(1);
    let again = sessions.by_connection(1);
    assert!(Arc::ptr_eq(&found.session, &again.session));
    assert!(found.cookie.is_some() && again.cookie.is_none());
    assert!(!Arc::ptr_eq(
        &found.session,
        &sessions.by_connection(2).session
    ));
    let kept = Arc::downgrade(&found.session);
    drop((found.session, again.session));
    sessions.sweep();
    assert!(kept.upgrade().is_some(), "idle, but its connection is open");
    sessions.connection_closed(1);
    assert!(kept.upgrade().is_none());
    let cookie = found.cookie.expect("offered");
    assert!(
        sessions.by_token(&cookie).is_err(),
        "never used, gone with its connection"
    );
}

#[test]
fn a_cookie_that_came_back_outlives_the_connection() {
    let sessions = Sessions::new(HOUR, 10);
    let found = sessions.by_connection(1);
    let cookie = found.cookie.expect("offered");
    assert!(Arc::ptr_eq(
        &found.session,
        &sessions.by_token(&cookie).expect("known")
    ));
    sessions.connection_closed(1);
    assert!(Arc::ptr_eq(
        &found.session,
        &sessions.by_token(&cookie).expect("still known")
    ));
}

#[test]
fn idle_sessions_end_unless_somebody_uses_them() {
    let sessions = Sessions::new(SOON, 10);
    let token = sessions.issue_bearer().expect("a bearer");
    assert_eq!(
        sessions.by_token(&token).expect_err("idle at once").kind,
        Kind::Unauthenticated
    );
    sessions.sweep();
    assert!(sessions.inner.lock().by_token.is_empty());

    let sessions = Sessions::new(Duration::from_millis(1), 10);
    let token = sessions.issue_bearer().expect("a bearer");
    let held = sessions
        .inner
        .lock()
        .by_token
        .values()
        .next()
        .map(|e| Arc::clone(&e.session));
    std::thread::sleep(Duration::from_millis(5));
    sessions.sweep();
    assert!(sessions.by_token(&token).is_ok(), "a result is under way");
    drop(held);
}

#[test]
fn sessions_are_bounded() {
    let sessions = Sessions::new(HOUR, 1);
    sessions.issue_bearer().expect("the first");
    let error = sessions.issue_bearer().expect_err("the second");
    assert_eq!(error.kind, Kind::ResourceExhausted);
}

#[test]
fn a_closed_session_is_unknown() {
    let sessions = Sessions::new(HOUR, 10);
    let token = sessions.issue_bearer().expect("a bearer");
    let session = sessions.by_token(&token).expect("known");
    sessions.close(&session);
    assert!(sessions.by_token(&token).is_err());
}

#[test]
fn a_timeout_of_zero_ends_nothing() {
    let sessions = Sessions::new(Duration::ZERO, 10);
    let token = sessions.issue_bearer().expect("a bearer");
    sessions.sweep();
    assert!(sessions.by_token(&token).is_ok());
}
