//! Which session a call belongs to: the one its bearer or cookie names, else its connection's.
//!
//! A token the server does not know is an error, never a fresh session: a session that silently
//! lost its clock would read the future. For the same reason a session known only by its
//! connection lives exactly as long as the connection, however idle.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use featureflight_catalog::{Error, Kind, Result};
use featureflight_engine::session::Session;
use parking_lot::Mutex;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// Name of the session cookie.
pub(crate) const COOKIE: &str = "featureflight-session";

const TOKEN_BYTES: usize = 32;

/// A token is kept as its hash: what leaks from memory or a core dump opens nothing.
type TokenHash = [u8; 32];

/// All sessions of a server.
#[derive(Debug)]
pub(crate) struct Sessions {
    idle_timeout: Duration,
    max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_token: HashMap<TokenHash, Entry>,
    by_connection: HashMap<u64, ByConnection>,
}

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    used: Instant,
    /// The connection whose session an unused cookie names.
    offered_to: Option<u64>,
}

#[derive(Debug)]
struct ByConnection {
    session: Arc<Session>,
    cookie: TokenHash,
}

/// A session, and the cookie to offer with the answer, once per connection.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) session: Arc<Session>,
    pub(crate) cookie: Option<String>,
}

impl Sessions {
    /// An `idle_timeout` of zero lets sessions live until they are closed.
    pub(crate) fn new(idle_timeout: Duration, max: usize) -> Arc<Self> {
        Arc::new(Self {
            idle_timeout,
            max,
            inner: Mutex::default(),
        })
    }

    /// A session of its own for a new bearer, which only the answer holds in clear.
    ///
    /// # Errors
    /// `ResourceExhausted` when there are too many sessions.
    pub(crate) fn issue_bearer(&self) -> Result<String> {
        let (token, hash) = new_token();
        let mut inner = self.inner.lock();
        if inner.by_token.len() >= self.max {
            return Err(Error::new(
                Kind::ResourceExhausted,
                format!(
                    "the server has its {} sessions; close one or try again later",
                    self.max
                ),
            ));
        }
        let entry = Entry {
            session: new_session(),
            used: Instant::now(),
            offered_to: None,
        };
        inner.by_token.insert(hash, entry);
        Ok(token)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.inner.lock().by_token.len()
    }

    /// The session of a bearer or a cookie.
    ///
    /// # Errors
    /// `Unauthenticated` for a token that was never issued or whose session has ended.
    pub(crate) fn by_token(&self, token: &str) -> Result<Arc<Session>> {
        let mut inner = self.inner.lock();
        match inner.by_token.get_mut(&hash(token)) {
            Some(entry) if !self.idle(entry) => {
                entry.used = Instant::now();
                // From here on the client keeps the session, not its connection.
                entry.offered_to = None;
                Ok(Arc::clone(&entry.session))
            }
            _ => Err(Error::new(
                Kind::Unauthenticated,
                "this session is unknown or has ended, and with it its clocks and temporary \
                 tables; connect again",
            )),
        }
    }

    /// The session of a connection, made at its first call.
    pub(crate) fn by_connection(&self, connection: u64) -> Found {
        let mut inner = self.inner.lock();
        if let Some(known) = inner.by_connection.get(&connection) {
            return Found {
                session: Arc::clone(&known.session),
                cookie: None,
            };
        }
        let session = new_session();
        let (token, cookie) = new_token();
        inner.by_connection.insert(
            connection,
            ByConnection {
                session: Arc::clone(&session),
                cookie,
            },
        );
        // Connections are bounded, and so are the cookies nobody has used.
        let entry = Entry {
            session: Arc::clone(&session),
            used: Instant::now(),
            offered_to: Some(connection),
        };
        inner.by_token.insert(cookie, entry);
        Found {
            session,
            cookie: Some(token),
        }
    }

    /// Ends the connection's session, unless its cookie has come back.
    pub(crate) fn connection_closed(&self, connection: u64) {
        let mut inner = self.inner.lock();
        let Some(closed) = inner.by_connection.remove(&connection) else {
            return;
        };
        let offered = inner.by_token.get(&closed.cookie);
        if offered.is_some_and(|entry| entry.offered_to.is_some()) {
            inner.by_token.remove(&closed.cookie);
            drop(inner);
            // Tickets that nobody fetches may keep the session itself for longer.
            closed.session.end();
        }
    }

    /// Forgets a session, whatever named it.
    pub(crate) fn close(&self, session: &Arc<Session>) {
        session.end();
        let mut inner = self.inner.lock();
        inner
            .by_token
            .retain(|_, entry| !Arc::ptr_eq(&entry.session, session));
        inner
            .by_connection
            .retain(|_, entry| !Arc::ptr_eq(&entry.session, session));
    }

    /// Drops idle sessions now and then. Never ends.
    pub(crate) async fn sweep_for_ever(&self) {
        let pause = (self.idle_timeout / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            tokio::time::sleep(pause).await;
            self.sweep();
        }
    }

    fn sweep(&self) {
        self.inner.lock().by_token.retain(|_, entry| {
            // Somebody else holds the session: a call or a result is under way.
            if Arc::strong_count(&entry.session) > 1 {
                entry.used = Instant::now();
            }
            !self.idle(entry)
        });
    }

    fn idle(&self, entry: &Entry) -> bool {
        !self.idle_timeout.is_zero()
            && Arc::strong_count(&entry.session) == 1
            && entry.used.elapsed() >= self.idle_timeout
    }
}

fn new_session() -> Arc<Session> {
    Arc::new(Session::new(uuid::Uuid::new_v4().simple().to_string()))
}

fn new_token() -> (String, TokenHash) {
    let mut bytes = [0; TOKEN_BYTES];
    rand::rng().fill_bytes(&mut bytes);
    let token = BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let hash = hash(&token);
    (token, hash)
}

fn hash(token: &str) -> TokenHash {
    Sha256::digest(token).into()
}
