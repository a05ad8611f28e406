//! Positions mean the same after dump and restore.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use annals_core::{
    Append, CheckpointStore, EventStore, EventStoreExt, ExpectedVersion, LeaseName, LeaseRecord,
    LeaseStore, NewEvent, Subscribe, SubscriberId, Version,
};
use uuid::Uuid;

use crate::{
    beside::{Listener, Raw},
    common::{Place, Tested, event, everything, id, tests},
    page,
};

tests! { "dump":
    Local a_restored_store_goes_on_where_the_first_was;
}

async fn a_restored_store_goes_on_where_the_first_was() -> Tested {
    let from = Place::shared().await?;
    let store = from.open().await?;
    let any = Append::new(id("a-any"), ExpectedVersion::Any, (0..3).map(event));
    let exact = Append::new(id("a-exact"), ExpectedVersion::NoStream, (0..3).map(event));
    let answers = [store.append(any.clone()).await?, store.append(exact.clone()).await?];
    let mut writer = Raw::new(&from).await?;
    writer.run("BEGIN").await?;
    writer.append_one("a-gap", "Counted").await?;
    writer.run("ROLLBACK").await?;
    for number in 0..5_u64 {
        store.append_to(format!("b-{number}"), ExpectedVersion::Any, [event(number)]).await?;
    }
    let subscriber = SubscriberId::new("projection")?;
    let mut live = Listener::on(&store, Subscribe::default()).await?;
    let mut checkpoint = 0;
    for _ in 0..4 {
        checkpoint = live.next().await?;
    }
    store.save_checkpoint(&subscriber, checkpoint.into()).await?;
    let lease = LeaseName::new("projection")?;
    let held = LeaseRecord::new(1, 1, Uuid::now_v7(), Duration::from_secs(1));
    assert!(store.swap_lease(&lease, &held).await?);
    // The newest events are removed. Their positions must not be given again.
    let newest: Vec<NewEvent> = (0..4).map(event).collect();
    let removed = store.append_to("c-1", ExpectedVersion::Any, newest).await?;
    store.delete(&id("c-1"), ExpectedVersion::Any).await?;
    let events = everything(&store).await?;
    // An append that is under way during the dump is not part of it, and must not hold up readers
    // of the restored store.
    writer.run("BEGIN").await?;
    writer.append_one("a-open", "Counted").await?;

    let mut to = Place::in_database("").await?;
    to.schema.clone_from(&from.schema);
    copy(&from, &to).await?;

    let restored = to.open().await?;
    assert_eq!(everything(&restored).await?, events);
    let kept = restored.load_checkpoint(&subscriber).await?.ok_or("no checkpoint")?;
    assert_eq!(kept.get(), checkpoint);
    assert_eq!(restored.load_lease(&lease).await?, Some(held));
    let mut live = Listener::on(&restored, Subscribe::default().after(kept)).await?;
    for event in events.iter().filter(|event| event.position > kept) {
        assert_eq!(live.next().await?, event.position.get());
    }
    for (append, answer) in [any, exact].into_iter().zip(answers) {
        let again = restored.append(append).await?;
        assert!(again.replayed);
        assert_eq!((again.last_version, again.position), (answer.last_version, answer.position));
    }
    let next = restored.append_to("c-1", Version::new(4), [event(1)]).await?;
    assert_eq!(next.last_version, Version::new(5));
    assert!(next.position > removed.position, "a position is given twice");
    assert_eq!(live.next().await?, next.position.get());
    let new = restored.append_to("d-1", ExpectedVersion::NoStream, [event(1)]).await?;
    assert_eq!(live.next().await?, new.position.get());
    drop(writer);
    to.remove().await?;
    from.remove().await
}

/// Dumps the schema from one database and restores it in another, as the book's page says.
async fn copy(from: &Place, to: &Place) -> Tested {
    let files = tempfile::tempdir()?;
    std::fs::set_permissions(files.path(), std::fs::Permissions::from_mode(0o777))?;
    let directory = files.path().to_str().ok_or("the path is not UTF-8")?;
    let database = to.config().connect.get_database().ok_or("no database")?.to_owned();
    let commands = page::block("pg_dump")?
        .replace("/srv/backup", directory)
        .replace("--schema=annals", &format!("--schema={}", from.schema))
        .replace("--dbname=restored", &format!("--dbname={database}"));
    page::shell(from, &commands).await
}
