//! Sends what is recognised when it comes twice.

use std::{ops::ControlFlow, sync::Arc};

use annals_core::{Error, Result};

use crate::{
    connections::{Connections, Lease},
    error::{Failure, driver, has_lost_connection, is_race},
};

/// How often a transaction is sent again that met another in the database.
const RACES: usize = 10;

/// What is left of what was sent before.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Its connection, for what is sent next.
    lease: Option<Lease>,
    /// Whether an answer was lost, so that it may have been written.
    pub(crate) is_unknown: bool,
}

impl Sent {
    /// Says so where it may have been written all the same.
    pub(crate) fn outcome(&self, error: Error) -> Error {
        if self.is_unknown { error.with_outcome_unknown() } else { error }
    }

    /// Lets others have the connection.
    pub(crate) fn keep(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.keep();
        }
    }
}

/// How often something was sent already.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    races: usize,
    /// Why the connection was lost.
    lost: Option<sqlx::Error>,
}

impl Sent {
    /// A connection to send on: that of before, as long as it is not known to be dead.
    pub(crate) async fn lease(
        &mut self,
        connections: &Arc<Connections>,
        tries: &mut Tries,
    ) -> Result<Lease> {
        let lease = match self.lease.take() {
            Some(lease) => return Ok(lease),
            None if tries.lost.is_some() => connections.get_tested().await,
            None => connections.get().await,
        };
        // Where it began says more than that it goes on.
        lease.map_err(|error| driver(tries.lost.take().unwrap_or(error)))
    }

    /// Takes the answer to what was sent, and the connection; goes on where the same is to be sent
    /// again.
    ///
    /// Where the connection is lost, it is not known whether it was written. To send it once more is
    /// safe, since what was written is recognised: it finds out. A connection that was kept from
    /// before may have been dead all the time, so this is not rare.
    pub(crate) fn answered<T>(
        &mut self,
        connections: &Connections,
        lease: Lease,
        answer: Result<T, Failure>,
        tries: &mut Tries,
    ) -> ControlFlow<Result<T>> {
        let error = match answer {
            Ok(answer) => {
                self.lease = Some(lease);
                return ControlFlow::Break(Ok(answer));
            }
            Err(Failure::Nonsense(error)) => {
                self.is_unknown = true;
                return ControlFlow::Break(Err(error));
            }
            Err(Failure::Driver(error)) => error,
        };
        if has_lost_connection(&error) {
            lease.close();
            connections.forget();
            self.is_unknown = true;
            if tries.lost.is_some() {
                return ControlFlow::Break(Err(driver(error)));
            }
            tracing::debug!(%error, "the connection was lost; sending it again");
            tries.lost = Some(error);
            return ControlFlow::Continue(());
        }
        self.lease = Some(lease);
        if is_race(&error) && tries.races < RACES {
            tries.races += 1;
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Err(driver(error)))
    }
}
