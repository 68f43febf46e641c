use super::*;

#[test]
fn failures_are_told_apart() {
    for (code, status, class) in [
        ("ResourceNotFound", 400, Class::Absent),
        ("EntityNotFoundException", 400, Class::Absent),
        ("AccessDeniedException", 400, Class::Denied),
        ("AccessDenied", 403, Class::Denied),
        ("ExpiredTokenException", 400, Class::Denied),
        ("", 403, Class::Denied),
        ("ThrottlingException", 400, Class::Away),
        ("Throttling", 400, Class::Away),
        ("TooManyRequestsException", 429, Class::Away),
        ("ServiceUnavailable", 503, Class::Away),
        ("InternalFailure", 500, Class::Away),
        ("", 500, Class::Away),
        ("UnknownOperationException", 400, Class::Unsupported),
        ("", 501, Class::Unsupported),
        ("ValidationException", 400, Class::Refused),
        ("", 404, Class::Refused),
    ] {
        assert_eq!(
            classify(code, Some(status), false),
            class,
            "{code} {status}"
        );
    }
    assert_eq!(classify("", None, false), Class::Away);
    assert_eq!(classify("", Some(500), true), Class::Unsupported);
    assert_eq!(classify("", Some(503), true), Class::Away);
}

#[tokio::test]
async fn pages_are_followed_to_the_end() {
    let mut seen = Vec::new();
    let call = async |token: Option<String>| {
        Ok(match token.as_deref() {
            None => serde_json::json!({"n": 1, "NextToken": "a"}),
            Some("a") => serde_json::json!({"n": 2, "NextToken": "b"}),
            _ => serde_json::json!({"n": 3, "NextToken": ""}),
        })
    };
    let each = |page: Value| {
        seen.push(page["n"].as_u64());
        Ok(())
    };
    pages("op", call, each).await.expect("pages");
    assert_eq!(seen, [Some(1), Some(2), Some(3)]);
}

#[tokio::test]
async fn pages_in_a_circle_are_an_error() {
    let call = async |token: Option<String>| {
        let next = if token.as_deref() == Some("a") {
            "b"
        } else {
            "a"
        };
        Ok(serde_json::json!({"NextToken": next}))
    };
    let failed = pages("op", call, |_| Ok(())).await.expect_err("circle");
    assert!(failed.error.message.contains("circle"), "{}", failed.error);
}
