//! Sends a statement that writes, and sends it again after a lost connection or a race.
//!
//! Such a statement may be sent twice, since the store recognises what it has written before.

use std::{ops::ControlFlow, sync::Arc};

use annals_core::{Error, Result};

use crate::{
    connections::{Connections, PooledConnection},
    error::{Failure, driver, has_lost_connection, is_race, is_read_only},
};

/// How often a statement is sent again because another transaction got in its way.
const MOST_RACES: usize = 10;

/// What a task that writes carries from one statement to the next.
#[derive(Debug, Default)]
pub struct WriteSession {
    /// The connection of the last statement.
    connection: Option<PooledConnection>,
    /// Whether an answer was lost, so that the statement may have written although it failed.
    pub outcome_unknown: bool,
}

/// The failures of one statement so far.
#[derive(Debug, Default)]
pub struct Attempts {
    races: usize,
    /// The error by which a connection was lost.
    lost: Option<sqlx::Error>,
}

impl WriteSession {
    /// Marks the outcome as unknown in an error, if it is.
    pub fn mark(&self, error: Error) -> Error {
        if self.outcome_unknown { error.with_outcome_unknown() } else { error }
    }

    /// Lets other tasks use the connection.
    pub fn give_back(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }

    /// A connection for the next attempt: that of the last statement, if it was not lost.
    pub async fn connection(
        &mut self,
        connections: &Arc<Connections>,
        attempts: &mut Attempts,
    ) -> Result<PooledConnection> {
        let connection = match self.connection.take() {
            Some(connection) => return Ok(connection),
            None if attempts.lost.is_some() => connections.get_tested().await,
            None => connections.get().await,
        };
        // The error by which the first connection was lost says more than that there is no other.
        connection.map_err(|error| driver(attempts.lost.take().unwrap_or(error)))
    }

    /// Takes the connection and the answer of an attempt. Says whether to send the statement again.
    ///
    /// After a lost connection it is not known whether the statement has written. Sending it once
    /// more finds out. This is not rare: an idle connection may have died long before it was used.
    pub fn answered<T>(
        &mut self,
        connections: &Connections,
        connection: PooledConnection,
        answer: Result<T, Failure>,
        attempts: &mut Attempts,
    ) -> ControlFlow<Result<T>> {
        let error = match answer {
            Ok(answer) => {
                self.connection = Some(connection);
                return ControlFlow::Break(Ok(answer));
            }
            Err(Failure::InvalidAnswer(error)) => {
                self.outcome_unknown = true;
                return ControlFlow::Break(Err(error));
            }
            Err(Failure::Driver(error)) => error,
        };
        if has_lost_connection(&error) {
            connection.close();
            connections.close_idle();
            self.outcome_unknown = true;
            if attempts.lost.is_some() {
                return ControlFlow::Break(Err(driver(error)));
            }
            tracing::debug!(%error, "the connection was lost; sending the statement again");
            attempts.lost = Some(error);
            return ControlFlow::Continue(());
        }
        if is_read_only(&error) {
            connection.forget();
            return ControlFlow::Break(Err(driver(error)));
        }
        self.connection = Some(connection);
        if is_race(&error) && attempts.races < MOST_RACES {
            attempts.races += 1;
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Err(driver(error)))
    }
}
