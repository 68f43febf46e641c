//! The format of tickets, and what is said of those that name nothing.

use super::*;
use crate::config::Secret;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn handle() -> Handle {
    std::array::from_fn(|i| i as u8)
}

/// Clients keep tickets, servers of two versions may see the same one: the bytes are a format.
#[test]
fn the_bytes_of_a_ticket_are_fixed() {
    let signer = Signer::new(Some(&Secret::new(KEY)));
    let ticket = encode(&signer, handle(), 1_800_000_000, None);
    let any = arrow_flight::sql::Any::decode(ticket.ticket.as_ref()).expect("an encoded Any");
    let inner: TicketStatementQuery = any.unpack().expect("readable").expect("a ticket");
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
