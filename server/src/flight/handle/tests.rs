//! The format of handles, and who can open them.

use super::*;
use crate::config::Secret;

fn signer() -> Signer {
    Signer::new(Some(&Secret::new("0123456789abcdef0123456789abcdef")))
}

/// A handle made by one version must open in another that shares its key.
#[test]
fn the_bytes_of_a_handle_are_fixed() {
    let nonce: [u8; 16] = std::array::from_fn(|i| i as u8);
    let statement = Statement {
        sql: "SELECT 1".into(),
        parameters: Some(Bytes::from_static(&[7, 8, 9])),
        nonce: Bytes::copy_from_slice(&nonce),
    };
    let sealed = statement.seal(&signer()).expect("sealed");
    let golden = "014e2b03dd0a0853454c454354203112030708091a10000102030405060708090a0b0c0d0e0f\
                  b82b25af0adc571fd08e4ca5150a2f7d690f61e4e67a0f6a71d1891b3ccb7f97";
    let hex: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, golden);
    assert_eq!(
        Statement::open(&signer(), &sealed).expect("opens"),
        statement
    );
}

#[test]
fn a_handle_opens_wherever_the_key_is_and_nowhere_else() {
    let statement = Statement::new("SELECT $1".into());
    let sealed = statement.seal(&signer()).expect("sealed");
    assert_eq!(
        Statement::open(&signer(), &sealed).expect("another server"),
        statement
    );
    let stranger = Statement::open(&Signer::new(None), &sealed).expect_err("another key");
    assert_eq!(stranger.kind, Kind::FailedPrecondition);
    for position in 0..sealed.len() {
        let mut changed = sealed.to_vec();
        changed[position] ^= 0x40;
        assert!(
            Statement::open(&signer(), &changed).is_err(),
            "byte {position}"
        );
        assert!(
            Statement::open(&signer(), &sealed[..position]).is_err(),
            "cut at {position}"
        );
    }
}

#[test]
fn two_preparations_of_one_text_differ() {
    let (a, b) = (
        Statement::new("SELECT 1".into()),
        Statement::new("SELECT 1".into()),
    );
    assert_ne!(
        a.seal(&signer()).expect("sealed"),
        b.seal(&signer()).expect("sealed")
    );
}

#[test]
fn handles_are_bounded() {
    let error = Statement::new("x".repeat(MAX_HANDLE_BYTES))
        .seal(&signer())
        .expect_err("too long");
    assert_eq!(error.kind, Kind::ResourceExhausted);
}

#[test]
fn what_is_bound_belongs_to_its_handle() {
    let bindings = Bindings::new(100, Duration::from_secs(60));
    bindings.remember(b"a", Bytes::from_static(b"1"));
    bindings.remember(b"a", Bytes::from_static(b"2"));
    assert_eq!(bindings.of(b"a").as_deref(), Some(&b"2"[..]));
    assert_eq!(bindings.of(b"b"), None);
    bindings.forget(b"a");
    assert_eq!(bindings.of(b"a"), None);
}
