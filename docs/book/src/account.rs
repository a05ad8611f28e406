use annals::domain::Decider;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug)]
pub enum AccountCommand {
    Open { customer: u64, name: String },
    Deposit { cents: u64 },
    Withdraw { cents: u64 },
    Close,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AccountEvent {
    #[serde(rename = "account-opened")]
    Opened { customer: u64, name: String },
    #[serde(rename = "money-deposited")]
    Deposited { cents: u64 },
    #[serde(rename = "money-withdrawn")]
    Withdrawn { cents: u64 },
    #[serde(rename = "account-closed")]
    Closed,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    NotOpen,
    NotEmpty,
    Overdrawn { short_of: u64 },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Refusal {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum AccountState {
    #[default]
    Unopened,
    Open { cents: u64 },
    Closed,
}

pub struct Account;

impl Decider for Account {
    const CATEGORY: &'static str = "account";
    type State = AccountState;
    type Command = AccountCommand;
    type Event = AccountEvent;
    type Rejection = Refusal;

    fn initial(&self) -> AccountState {
        AccountState::Unopened
    }

    fn decide(
        &self,
        command: &AccountCommand,
        state: &AccountState,
    ) -> Result<Vec<AccountEvent>, Refusal> {
        use AccountCommand::*;
        Ok(match (command.clone(), state) {
            (Open { customer, name }, AccountState::Unopened) => {
                vec![AccountEvent::Opened { customer, name }]
            }
            // The command was executed before: nothing to do.
            (Open { .. }, AccountState::Open { .. }) | (Close, AccountState::Closed) => vec![],
            (Deposit { cents }, AccountState::Open { .. }) => {
                vec![AccountEvent::Deposited { cents }]
            }
            (Withdraw { cents }, AccountState::Open { cents: balance }) => {
                match cents.checked_sub(*balance) {
                    None | Some(0) => vec![AccountEvent::Withdrawn { cents }],
                    Some(short_of) => return Err(Refusal::Overdrawn { short_of }),
                }
            }
            (Close, AccountState::Open { cents: 0 }) => vec![AccountEvent::Closed],
            (Close, AccountState::Open { .. }) => return Err(Refusal::NotEmpty),
            _ => return Err(Refusal::NotOpen),
        })
    }

    fn evolve(&self, state: &mut AccountState, event: &AccountEvent) {
        match (event, &mut *state) {
            (AccountEvent::Opened { .. }, _) => *state = AccountState::Open { cents: 0 },
            (AccountEvent::Deposited { cents }, AccountState::Open { cents: balance }) => {
                *balance += cents;
            }
            (AccountEvent::Withdrawn { cents }, AccountState::Open { cents: balance }) => {
                *balance = balance.saturating_sub(*cents);
            }
            (AccountEvent::Closed, _) => *state = AccountState::Closed,
            _ => {}
        }
    }

    fn forgotten(&self, state: &mut AccountState, event_type: &str) -> bool {
        let was_opened = event_type == "account-opened";
        if was_opened {
            *state = AccountState::Open { cents: 0 };
        }
        was_opened
    }
}
