//! Whatever commits out of order, is rolled back, or stays open: no event is skipped.

use annals_core::{Append, EventStore, Subscribe, ExpectedVersion};

use crate::common::{Place, Tested, event, everything, id, tests};

tests! { "order":
    Any it_works;
}

async fn it_works() -> Tested {
    let place = Place::shared().await?;
    let store = place.open().await?;
    store.append(Append::new(id("a-1"), ExpectedVersion::Any, [event(1)])).await?;
    let mut live = store.subscribe(Subscribe::default()).await?;
    live.next_event().await?;
    assert_eq!(everything(&store).await?.len(), 1);
    place.remove().await
}
