use std::convert::Infallible;
use annals::domain::Decider;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug)]
pub enum DeadlineCommand {
    Set { until: i64 }, // seconds since 1970
    Meet,
    Check { now: i64 },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum DeadlineEvent {
    #[serde(rename = "deadline-set")]
    Set { until: i64 },
    #[serde(rename = "deadline-met")]
    Met,
    #[serde(rename = "deadline-expired")]
    Expired,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DeadlineState {
    Unset,
    Open { until: i64 },
    Over, // met or expired
}

pub struct Deadline;

impl Decider for Deadline {
    const CATEGORY: &'static str = "deadline";
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
        state: &DeadlineState,
    ) -> Result<Vec<DeadlineEvent>, Infallible> {
        Ok(match (command, state) {
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

    fn evolve(&self, state: &mut DeadlineState, event: &DeadlineEvent) {
        *state = match event {
            DeadlineEvent::Set { until } => DeadlineState::Open { until: *until },
            DeadlineEvent::Met | DeadlineEvent::Expired => DeadlineState::Over,
        }
    }
}
