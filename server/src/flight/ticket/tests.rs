//! The format of tickets, and what is said of those that name nothing.

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};

use super::*;
use crate::config::Secret;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn handle() -> Handle {
    std::array::from_fn(|i| i as u8)
}

fn sealed(expiry: u64, part: Part) -> Sealed {
    Sealed {
        handle: handle(),
        expiry,
        part,
    }
}

fn answer(reasons: &str) -> RecordBatch {
    let count: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let reasons: ArrayRef = Arc::new(StringArray::from(vec![reasons]));
    RecordBatch::try_from_iter([("accepted", count), ("reasons", reasons)]).expect("two columns")
}

/// Clients keep tickets, servers of two versions may see the same one: the bytes are a format.
#[test]
fn the_bytes_of_a_ticket_are_fixed() {
    let signer = Signer::new(Some(&Secret::new(KEY)));
    let ticket = seal(&signer, &sealed(1_800_000_000, Part::Whole));
    let inner = statement_ticket(&ticket).expect("a ticket");
    let golden = "014e2b03dd000102030405060708090a0b0c0d0e0f000000006b49d200\
                  eb95ac80dc51cd9f38148cb6fe46f663fa3d25059d2309f14b9c26ffe118a65f";
    assert_eq!(hex(&inner.statement_handle), golden);
}

#[test]
fn what_is_not_ours_is_invalid_and_what_is_gone_is_aborted() {
    let signer = Signer::new(Some(&Secret::new(KEY)));
    let statements = Statements::new(10, 1 << 20, Duration::from_secs(60));
    let redeem = |bytes: Vec<u8>| {
        let ticket = TicketStatementQuery {
            statement_handle: bytes.into(),
        };
        statements
            .redeem(&signer, &ticket)
            .expect_err("never issued")
            .kind
    };
    let sealed = |expiry: u64| {
        let mut payload = handle().to_vec();
        payload.extend_from_slice(&expiry.to_be_bytes());
        signer.seal(Purpose::Ticket, &payload)
    };
    assert_eq!(
        redeem(sealed(u64::from(u32::MAX))),
        Kind::Aborted,
        "unknown handle"
    );
    assert_eq!(redeem(sealed(1)), Kind::Aborted, "expired");
    assert_eq!(redeem(Vec::new()), Kind::InvalidArgument);
    assert_eq!(
        redeem(signer.seal(Purpose::Ticket, b"short")),
        Kind::InvalidArgument
    );
    assert_eq!(
        redeem(signer.seal(Purpose::PreparedStatement, &[0; 24])),
        Kind::InvalidArgument
    );
    assert_eq!(
        redeem(Signer::new(None).seal(Purpose::Ticket, &[0; 24])),
        Kind::Aborted
    );
    let mut changed = sealed(u64::from(u32::MAX));
    changed[10] ^= 1;
    assert_eq!(redeem(changed), Kind::InvalidArgument);
}

#[test]
fn an_expiry_beyond_time_is_no_panic() {
    let signer = Signer::new(Some(&Secret::new(KEY)));
    let statements = Statements::new(10, 1 << 20, Duration::from_secs(60));
    let mut payload = handle().to_vec();
    payload.extend_from_slice(&u64::MAX.to_be_bytes());
    let statement_handle = signer.seal(Purpose::Ticket, &payload).into();
    let error = statements.redeem(&signer, &TicketStatementQuery { statement_handle });
    assert_eq!(error.expect_err("not issued").kind, Kind::Aborted);
}

#[test]
fn every_part_is_read_as_it_was_sealed() {
    for part in [Part::Whole, Part::Slice(3), Part::answer(&answer("none"))] {
        let sealed = sealed(9, part);
        assert_eq!(Sealed::decode(&sealed.encode()), Some(sealed));
    }
    let mut broken = sealed(9, Part::Whole).encode();
    for garbage in [&b"A"[..], b"Agarbage", b"B"] {
        broken.truncate(24);
        broken.extend_from_slice(garbage);
        assert_eq!(Sealed::decode(&broken), None);
    }
}

/// An answer says how many rows were written, however much there is to say of others.
#[test]
fn a_ticket_with_an_answer_stays_small() {
    let long = "größer ".repeat(10_000);
    let part = Part::answer(&answer(&long));
    let Part::Answer(short) = &part else {
        panic!("not sealed: {part:?}")
    };
    let reasons = short.column(1).as_string::<i32>().value(0);
    assert!(
        reasons.starts_with("größer") && reasons.ends_with(" ..."),
        "{reasons}"
    );
    assert_eq!(short.column(0), answer("").column(0));
    let signer = Signer::new(None);
    assert!(seal(&signer, &sealed(9, part.clone())).ticket.len() < 4_500);
    let wide = (0..1_000).map(|at| (at.to_string(), short.column(0).clone()));
    let wide = RecordBatch::try_from_iter(wide).expect("columns");
    assert_eq!(Part::answer(&wide), Part::Whole, "too long to seal");
}

/// Whoever follows the advice writes once.
#[test]
fn an_expired_answer_is_no_reason_to_run_a_write_again() {
    let signer = Signer::new(Some(&Secret::new(KEY)));
    let statements = Statements::new(10, 1 << 20, Duration::from_secs(60));
    let redeem = |signer: &Signer, ticket: &Ticket| {
        let ticket = statement_ticket(ticket).expect("a ticket");
        statements.redeem(signer, &ticket)
    };
    let good = seal(&signer, &sealed(u64::MAX, Part::answer(&answer(""))));
    let kept = redeem(&signer, &good).expect("it holds its answer");
    assert!(matches!(kept, Redeemed::Answer(row) if row == answer("")));
    let expired = seal(&signer, &sealed(1, Part::answer(&answer(""))));
    for (signer, ticket) in [(&signer, &expired), (&Signer::new(None), &good)] {
        let refused = redeem(signer, ticket).expect_err("gone");
        assert_eq!(refused.kind, Kind::Aborted);
        assert!(refused.message.contains(IDEMPOTENCY_KEY), "{refused}");
        assert!(
            !refused.message.contains("run the statement again"),
            "{refused}"
        );
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
