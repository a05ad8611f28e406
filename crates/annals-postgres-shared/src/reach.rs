//! Finds out that the server cannot be reached.
//!
//! While a server refuses connections, a pool of sqlx goes on trying until its acquire timeout, and
//! then reports that it is exhausted. So a caller that has waited for a while connects once outside the
//! pool, which tells whether the server or the pool is to blame.

use std::{
    io,
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::{sync::Mutex, time::sleep};

/// How long a caller waits for the pool before it looks for the cause, and how long what was found
/// holds for others. A pool that is only busy costs one more connection in this time.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// What was found last, for all callers that wait for the pool. One of them looks at a time.
#[derive(Debug, Default)]
pub(crate) struct Reach(Mutex<Option<(Instant, Option<Refusal>)>>);

/// The parts of an [`io::Error`], which cannot be cloned.
type Refusal = (io::ErrorKind, String);

impl Reach {
    /// Returns when it is clear that the server cannot be reached, with the error of a connection.
    pub(crate) async fn lost(&self, pool: &PgPool) -> sqlx::Error {
        let look_after = LOOK_AFTER.min(pool.options().get_acquire_timeout() / 2);
        loop {
            sleep(look_after).await;
            if let Some((kind, text)) = self.look(pool, look_after).await {
                return sqlx::Error::Io(io::Error::new(kind, text));
            }
        }
    }

    async fn look(&self, pool: &PgPool, holds: Duration) -> Option<Refusal> {
        let mut found = self.0.lock().await;
        if let Some((at, refusal)) = &*found
            && at.elapsed() < holds
        {
            return refusal.clone();
        }
        let refusal = match pool.connect_options().connect().await {
            Ok(connection) => {
                drop(connection.close().await);
                None
            }
            Err(sqlx::Error::Io(error)) => Some((error.kind(), error.to_string())),
            // The server has answered.
            Err(_) => None,
        };
        *found = Some((Instant::now(), refusal.clone()));
        refusal
    }
}
