//! What an aggregate decides, as pure functions.

use serde::{Serialize, de::DeserializeOwned};

/// An aggregate: what it decides on a command, and what its events make of its state. Pure: it
/// knows no store, no clock and no chance; what it needs of those stands in the command.
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
    /// The category of its streams: `order` of `order-42`. Not empty, and without a `-`.
    const CATEGORY: &'static str;
    /// All that decisions need to know of what happened.
    type State: Send + Sync + 'static;
    /// What it can be asked to do.
    type Command: Send + Sync;
    /// What can happen to it: an enum, stored as [`Schema`](crate::Schema) says.
    type Event: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// Why it does not do what it is asked to.
    type Rejection: std::error::Error + Send + Sync + 'static;

    /// The state before the first event.
    fn initial(&self) -> Self::State;

    /// What happens on a command: no event where there is nothing to do, such as what has been
    /// done before.
    ///
    /// # Errors
    /// The rejection.
    fn decide(
        &self,
        command: &Self::Command,
        state: &Self::State,
    ) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// What an event makes of the state. It has happened: this cannot refuse it.
    fn evolve(&self, state: &mut Self::State, event: &Self::Event);

    /// An event of this type has happened, of somebody who has been forgotten. Says whether the
    /// state can do without its data. Unless this is implemented it cannot, and loading fails with
    /// [`ErrorKind::Forgotten`](annals_core::ErrorKind::Forgotten).
    fn forgotten(&self, _state: &mut Self::State, _event_type: &str) -> bool {
        false
    }
}
