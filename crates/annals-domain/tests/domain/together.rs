//! Commands to several aggregates: what a step that writes nothing checks, and rejections by name.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use annals_core::{EventStoreExt, ExpectedVersion, NewEvent, Result, Store};
use annals_domain::{CommandHandler, Context, Decider, ExecuteError, Together};
use annals_test_stores::{Fresh, Hook, Hooked, Kind};
use serde::{Deserialize, Serialize};

use crate::{
    account::{Command, Rejection},
    execute::accounts,
};

/// A door, which somebody else may close.
struct Door;

#[derive(Serialize, Deserialize)]
enum DoorEvent {
    #[serde(rename = "closed")]
    Closed,
    #[serde(rename = "checked")]
    Checked,
}

/// What to decide if the door is open.
#[derive(Clone, Copy)]
enum Look {
    /// Nothing.
    Away,
    /// An event.
    Closely,
}

#[derive(Debug, PartialEq)]
struct IsClosed;

impl fmt::Display for IsClosed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the door is closed")
    }
}

impl std::error::Error for IsClosed {}

impl Decider for Door {
    const CATEGORY: &'static str = "door";
    type State = bool;
    type Command = Look;
    type Event = DoorEvent;
    type Rejection = IsClosed;

    fn initial(&self) -> bool {
        false
    }

    fn decide(&self, look: &Look, is_closed: &bool) -> Result<Vec<DoorEvent>, IsClosed> {
        match look {
            _ if *is_closed => Err(IsClosed),
            Look::Away => Ok(vec![]),
            Look::Closely => Ok(vec![DoorEvent::Checked]),
        }
    }

    fn evolve(&self, is_closed: &mut bool, event: &DoorEvent) {
        *is_closed |= matches!(event, DoorEvent::Closed);
    }
}

/// Closes the door before the first write.
#[derive(Debug)]
struct Closing(Arc<dyn Store>, AtomicBool);

impl Hook for Closing {
    async fn write<T: Send>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if !self.1.swap(true, SeqCst) {
            let closed = NewEvent::json("closed", &serde_json::json!({}))?;
            self.0.append_to("door-1", ExpectedVersion::Any, [closed]).await?;
        }
        call.await
    }
}

/// All rejections: the compiler sees whether a `match` has each.
#[derive(Debug, PartialEq)]
enum Refused {
    ByDoor(IsClosed),
    ByAccount(Rejection),
}

/// The door closes between the decision and the append.
pub(crate) async fn a_check_has_to_be_an_event(kind: Kind) {
    for (look, due) in [(Look::Away, Ok(())), (Look::Closely, Err(Refused::ByDoor(IsClosed)))] {
        let fresh = Fresh::open(&kind).await;
        if !fresh.store.capabilities().multi_stream_append {
            return;
        }
        let accounts = accounts(&fresh.store);
        let doors = CommandHandler::new(fresh.store.clone(), Door).unwrap();
        let hook = Closing(fresh.store.clone(), AtomicBool::new(false));
        let together = Together::new(Hooked::new(&fresh.store, hook)).unwrap();
        let steps = vec![
            doors.step_as("1", look, Refused::ByDoor),
            accounts.step_as("a", Command::Open("Ada".into()), Refused::ByAccount),
        ];
        let done = match together.execute(steps, &Context::default()).await {
            Ok(done) => Ok(assert!(done[1].is_some())),
            Err(ExecuteError::Rejected(refused)) => Err(refused),
            Err(other) => panic!("{other:?}"),
        };
        assert_eq!(done, due);
        // All or nothing was written.
        let written = accounts.load("a").await.unwrap().state.owner.is_some();
        assert_eq!(written, due.is_ok());
    }
}

pub(crate) async fn rejections_have_names(kind: Kind) {
    let fresh = Fresh::open(&kind).await;
    if !fresh.store.capabilities().multi_stream_append {
        return;
    }
    let accounts = accounts(&fresh.store);
    let doors = CommandHandler::new(fresh.store.clone(), Door).unwrap();
    let together = Together::new(fresh.store.clone()).unwrap();
    for (door, due) in [("1", "no account"), ("2", "no door")] {
        if door == "2" {
            let closed = NewEvent::json("closed", &serde_json::json!({})).unwrap();
            fresh.store.append_to("door-2", ExpectedVersion::Any, [closed]).await.unwrap();
        }
        let steps = vec![
            doors.step_as(door, Look::Closely, Refused::ByDoor),
            accounts.step_as("a", Command::Deposit(1), Refused::ByAccount),
        ];
        let error = together.execute(steps, &Context::default()).await.unwrap_err();
        let ExecuteError::Rejected(refused) = error else { panic!("{error:?}") };
        let said = match refused {
            Refused::ByDoor(IsClosed) => "no door",
            Refused::ByAccount(Rejection::NotOpen) => "no account",
            Refused::ByAccount(Rejection::Overdrawn) => "no money",
        };
        assert_eq!(said, due);
    }
}
