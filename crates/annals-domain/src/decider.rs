//! The decider: an aggregate as pure functions.

use serde::{Serialize, de::DeserializeOwned};

/// An aggregate as pure functions: `decide` turns a command into events, and `evolve` applies an
/// event to the state. A decider has no access to a store, a clock or random numbers; if a decision
/// needs them, their values are part of the command.
///
/// [`testing::given`](crate::testing::given) tests it without a store, and a
/// [`CommandHandler`](crate::CommandHandler) runs it on one.
///
/// ```
/// use annals_domain::Decider;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// enum AccountEvent {
///     #[serde(rename = "deposited")]
///     Deposited { cents: u64 },
///     #[serde(rename = "withdrawn")]
///     Withdrawn { cents: u64 },
/// }
/// enum AccountCommand { Deposit(u64), Withdraw(u64) }
///
/// #[derive(Debug, PartialEq)]
/// struct Overdrawn { short_of: u64 }
/// # impl std::fmt::Display for Overdrawn {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "overdrawn") }
/// # }
/// # impl std::error::Error for Overdrawn {}
///
/// struct Account;
/// impl Decider for Account {
///     const CATEGORY: &'static str = "account";
///     type State = u64; // cents
///     type Command = AccountCommand;
///     type Event = AccountEvent;
///     type Rejection = Overdrawn;
///
///     fn initial(&self) -> u64 { 0 }
///
///     fn decide(&self, command: &AccountCommand, state: &u64) -> Result<Vec<AccountEvent>, Overdrawn> {
///         match *command {
///             AccountCommand::Deposit(cents) => Ok(vec![AccountEvent::Deposited { cents }]),
///             AccountCommand::Withdraw(cents) if cents <= *state => {
///                 Ok(vec![AccountEvent::Withdrawn { cents }])
///             }
///             AccountCommand::Withdraw(cents) => Err(Overdrawn { short_of: cents - state }),
///         }
///     }
///
///     fn evolve(&self, state: &mut u64, event: &AccountEvent) {
///         match event {
///             AccountEvent::Deposited { cents } => *state += cents,
///             AccountEvent::Withdrawn { cents } => *state -= cents,
///         }
///     }
/// }
/// # fn main() {
/// use AccountEvent::{Deposited, Withdrawn};
/// annals_domain::testing::given(Account, [Deposited { cents: 50 }])
///     .when(AccountCommand::Withdraw(20))
///     .then([Withdrawn { cents: 20 }]);
/// # }
/// ```
pub trait Decider: Send + Sync + 'static {
    /// The category of the aggregate's streams: `order` for `order-42`. Not empty, and without `-`.
    const CATEGORY: &'static str;
    /// The state: what decisions need to know about the past events, and no more.
    type State: Send + Sync + 'static;
    /// The commands that the aggregate understands.
    type Command: Send + Sync;
    /// The events of the aggregate: an enum, stored as [`Schema`](crate::Schema) describes.
    type Event: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The reasons for which the aggregate refuses commands.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// The state before the first event.
    fn initial(&self) -> Self::State;

    /// The events that the command leads to in this state: none if there is nothing to do, for
    /// example because the same command was executed before.
    ///
    /// # Errors
    /// The rejection, if the aggregate refuses the command.
    fn decide(
        &self,
        command: &Self::Command,
        state: &Self::State,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// Applies an event to the state. The event has happened, so this function cannot refuse it.
    fn evolve(&self, state: &mut Self::State, event: &Self::Event);

    /// Applies an event whose data cannot be read any more, since its subject was forgotten (see the
    /// module `personal`). Returns true if the state is right without the data. By default it
    /// returns false, and loading fails with
    /// [`ErrorKind::Forgotten`](annals_core::ErrorKind::Forgotten).
    fn forgotten(&self, _state: &mut Self::State, _event_type: &str) -> bool {
        false
    }
}
