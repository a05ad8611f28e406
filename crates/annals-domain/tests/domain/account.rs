//! The aggregate of these tests: an account, which cannot be overdrawn.

use std::fmt;

use annals_domain::Decider;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Event {
    #[serde(rename = "opened")]
    Opened { owner: String },
    #[serde(rename = "deposited")]
    Deposited { cents: u64 },
    #[serde(rename = "withdrawn")]
    Withdrawn { cents: u64 },
    #[serde(rename = "closed")]
    Closed,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Open(String),
    Deposit(u64),
    Withdraw(u64),
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rejection {
    NotOpen,
    Overdrawn,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Rejection {}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) owner: Option<String>,
    pub(crate) cents: u64,
    /// How many events were applied.
    pub(crate) folded: u64,
}

pub(crate) struct Account;

impl Decider for Account {
    const CATEGORY: &'static str = "account";
    type State = State;
    type Command = Command;
    type Event = Event;
    type Rejection = Rejection;

    fn initial(&self) -> State {
        State::default()
    }

    fn decide(&self, command: &Command, state: &State) -> Result<Vec<Event>, Rejection> {
        match command {
            Command::Open(_) if state.owner.is_some() => Ok(Vec::new()),
            Command::Open(owner) => Ok(vec![Event::Opened { owner: owner.clone() }]),
            _ if state.owner.is_none() => Err(Rejection::NotOpen),
            Command::Deposit(cents) => Ok(vec![Event::Deposited { cents: *cents }]),
            Command::Withdraw(cents) if *cents > state.cents => Err(Rejection::Overdrawn),
            Command::Withdraw(cents) => Ok(vec![Event::Withdrawn { cents: *cents }]),
            Command::Close if state.cents > 0 => {
                Ok(vec![Event::Withdrawn { cents: state.cents }, Event::Closed])
            }
            Command::Close => Ok(vec![Event::Closed]),
        }
    }

    fn evolve(&self, state: &mut State, event: &Event) {
        state.folded += 1;
        match event {
            Event::Opened { owner } => state.owner = Some(owner.clone()),
            Event::Deposited { cents } => state.cents += cents,
            Event::Withdrawn { cents } => state.cents -= cents,
            Event::Closed => state.owner = None,
        }
    }
}
