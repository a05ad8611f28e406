//! The time there is to pay an order. It knows no clock: what time it is stands in the command.

use std::convert::Infallible;

use annals::domain::Decider;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug)]
pub enum DeadlineCommand {
    Set {
        until: DateTime<Utc>,
    },
    /// It need not be waited for any more.
    Meet,
    /// Has it passed?
    Check {
        now: DateTime<Utc>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadlineEvent {
    #[serde(rename = "PaymentDeadlineSet")]
    Set { until: DateTime<Utc> },
    #[serde(rename = "PaymentDeadlineMet")]
    Met,
    #[serde(rename = "PaymentDeadlineExpired")]
    Expired,
}

/// Decides for one order whether its time is over.
#[derive(Clone, Copy, Debug)]
pub struct Deadline;

#[derive(Clone, Copy, Debug, Default)]
pub enum DeadlineState {
    #[default]
    Unset,
    Open {
        until: DateTime<Utc>,
    },
    /// Met or expired.
    Over,
}

impl Decider for Deadline {
    /// No longer than that of orders, so that there is room for every order's name.
    const CATEGORY: &'static str = "timer";
    type State = DeadlineState;
    type Command = DeadlineCommand;
    type Event = DeadlineEvent;
    type Rejection = Infallible;

    fn initial(&self) -> DeadlineState {
        DeadlineState::Unset
    }

    fn decide(
        &self,
        command: &DeadlineCommand,
        deadline: &DeadlineState,
    ) -> Result<Vec<DeadlineEvent>, Infallible> {
        Ok(match (command, deadline) {
            (DeadlineCommand::Set { until }, DeadlineState::Unset) => {
                vec![DeadlineEvent::Set { until: *until }]
            }
            (DeadlineCommand::Meet, DeadlineState::Open { .. }) => vec![DeadlineEvent::Met],
            (DeadlineCommand::Check { now }, DeadlineState::Open { until }) if now >= until => {
                vec![DeadlineEvent::Expired]
            }
            _ => vec![],
        })
    }

    fn evolve(&self, deadline: &mut DeadlineState, event: &DeadlineEvent) {
        *deadline = match event {
            DeadlineEvent::Set { until } => DeadlineState::Open { until: *until },
            DeadlineEvent::Met | DeadlineEvent::Expired => DeadlineState::Over,
        }
    }
}

#[cfg(test)]
mod tests {
    use annals::domain::testing::given;
    use chrono::TimeDelta;

    use super::{DeadlineCommand::*, DeadlineEvent as Event, *};

    const NOON: DateTime<Utc> = DateTime::UNIX_EPOCH;

    #[test]
    fn it_expires_when_it_has_passed_and_not_before() {
        given(Deadline, [])
            .when(Check { now: NOON })
            .then_nothing()
            .when(Set { until: NOON })
            .then([Event::Set { until: NOON }])
            .when(Check { now: NOON - TimeDelta::milliseconds(1) })
            .then_nothing()
            .when(Check { now: NOON })
            .then([Event::Expired]);
    }

    #[test]
    fn it_is_set_once_and_over_once() {
        let set = Event::Set { until: NOON };
        for over in [Event::Met, Event::Expired] {
            let mut deadline = given(Deadline, [set.clone(), over]);
            for command in [Set { until: NOON }, Meet, Check { now: NOON }] {
                deadline = deadline.when(command).then_nothing();
            }
        }
        given(Deadline, [set]).when(Set { until: DateTime::<Utc>::MAX_UTC }).then_nothing();
    }
}
