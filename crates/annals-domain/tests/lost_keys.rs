//! A key store that is not the right one: its events are not taken for forgotten ones, and get no second
//! key.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::{convert::Infallible, sync::Arc};

use annals_core::{ErrorKind, EventStoreExt, ExpectedVersion, Store};
use annals_domain::{
    CommandHandler, Context, Decider, Decoded, ExecuteError, Schema,
    personal::{KeyStore, MemoryKeys, Opened, PersonalData, StoreKeys, Subject},
};
use annals_memory::MemoryStore;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Event {
    Named { person: String, name: String },
}

struct Person;

impl Decider for Person {
    const CATEGORY: &'static str = "person";
    type State = Vec<Event>;
    type Command = Event;
    type Event = Event;
    type Rejection = Infallible;

    fn initial(&self) -> Vec<Event> {
        Vec::new()
    }

    fn decide(&self, command: &Event, _: &Vec<Event>) -> Result<Vec<Event>, Infallible> {
        Ok(vec![command.clone()])
    }

    fn evolve(&self, state: &mut Vec<Event>, event: &Event) {
        state.push(event.clone());
    }

    fn forgotten(&self, _: &mut Vec<Event>, _: &str) -> bool {
        true
    }
}

fn schema(keys: Arc<dyn KeyStore>) -> Schema<Event> {
    let schema = Schema::new().unwrap();
    schema.with_personal_data(PersonalData::new(keys), |Event::Named { person, .. }| {
        Subject::new(person).map(Some)
    })
}

fn people(store: &Arc<dyn Store>, keys: Arc<dyn KeyStore>) -> CommandHandler<Person> {
    CommandHandler::new(store.clone(), Person).unwrap().with_schema(schema(keys))
}

fn named(person: &str) -> Event {
    Event::Named { person: person.into(), name: "…".into() }
}

fn both() -> [fn() -> Arc<dyn KeyStore>; 2] {
    [
        || Arc::new(MemoryKeys::new()),
        || Arc::new(StoreKeys::new(Arc::new(MemoryStore::new())).unwrap()),
    ]
}

fn kind<T: std::fmt::Debug>(result: Result<T, ExecuteError<Infallible>>) -> ErrorKind {
    match result {
        Err(ExecuteError::Store(error)) => error.kind(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_key_never_held_is_not_a_forgotten_one() {
    for keys in both() {
        let (right, wrong) = (keys(), keys());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (ada, none) = (Subject::new("ada").unwrap(), Context::default());
        let mine = people(&store, right.clone());
        let stream = mine.execute("1", &named("ada"), &none).await.unwrap().stream;
        let stored = store.load_stream(&stream).await.unwrap().remove(0);

        let others = people(&store, wrong.clone());
        let error = others.schema().decode(&stored).await.unwrap_err();
        assert_eq!((error.kind(), error.stream()), (ErrorKind::Incompatible, Some(&stream)));
        assert!(error.to_string().contains("\"ada\""), "{error}");
        assert_eq!(others.load("1").await.unwrap_err().kind(), ErrorKind::Incompatible);
        // Neither in the stream nor in another one, and not after a restart either.
        for id in ["1", "2"] {
            for others in [&others, &people(&store, wrong.clone())] {
                let failed = others.execute(id, &named("ada"), &none).await;
                assert_eq!(kind(failed), ErrorKind::Incompatible);
            }
        }
        assert!(wrong.find(&ada).await.unwrap().is_none(), "no second key was made");
        others.execute("3", &named("bob"), &none).await.unwrap();

        // The right one is back.
        assert_eq!(mine.load("1").await.unwrap().state, [named("ada")]);
        mine.execute("2", &named("ada"), &none).await.unwrap();
        right.forget(&ada).await.unwrap();
        assert_eq!(mine.schema().decode(&stored).await.unwrap(), Decoded::Forgotten);
        assert_eq!(kind(mine.execute("2", &named("ada"), &none).await), ErrorKind::Forgotten);
        // One that has forgotten a subject without ever having held its key.
        wrong.forget(&ada).await.unwrap();
        assert_eq!(others.schema().decode(&stored).await.unwrap(), Decoded::Forgotten);
    }
}

#[tokio::test]
async fn what_could_not_be_opened_is_not_sealed_with_another_key() {
    for keys in both() {
        let (right, wrong) = (PersonalData::new(keys()), keys());
        let (ada, store) = (Subject::new("ada").unwrap(), MemoryStore::new());
        let stream = annals_core::StreamId::new("person-1").unwrap();
        let event = || annals_core::NewEvent::json("Named", &"Ada").unwrap();
        let sealed = right.seal(&stream, event(), &ada).await.unwrap();
        store.append_to(&stream, ExpectedVersion::Any, [sealed]).await.unwrap();
        let read = store.load_stream(&stream).await.unwrap().remove(0);

        let other = PersonalData::new(wrong.clone());
        assert_eq!(other.open(&read).await.unwrap_err().kind(), ErrorKind::Incompatible);
        let refused = other.clone().seal(&stream, event(), &ada).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incompatible);
        assert!(wrong.find(&ada).await.unwrap().is_none());
        wrong.forget(&ada).await.unwrap();
        assert_eq!(other.open(&read).await.unwrap(), Opened::Forgotten(ada.clone()));
        let refused = other.seal(&stream, event(), &ada).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forgotten);
    }
}
