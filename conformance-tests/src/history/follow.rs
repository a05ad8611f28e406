//! A subscriber of a history: it records everything that it is told, up to the mark at the end.

use std::sync::Arc;

use annals_core::{Message, Source, Store, Subscribe};
use tokio::{task::yield_now, time::timeout};

use super::{
    ids::STOP,
    program::{Follower, From},
    record::{Followed, Start, Told},
    run::Run,
};

pub(super) async fn follow(run: Arc<Run>, store: Arc<dyn Store>, follower: Follower) -> Followed {
    for _ in 0..follower.pause {
        yield_now().await;
    }
    let start = match follower.from {
        From::End => Start::End,
        From::Latest => Start::After(run.latest()),
        From::Beginning if run.ordered => Start::After(run.base()),
        From::Beginning => Start::Beginning,
    };
    let source = match follower.stream {
        Some(stream) => Source::Stream(run.name(stream).clone()),
        None => Source::All(run.filter(follower.pause.into())),
    };
    let options = Subscribe::to(source).with_start(match start {
        Start::Beginning => annals_core::Start::Beginning,
        Start::After(position) => annals_core::Start::After(position.into()),
        Start::End => annals_core::Start::End,
    });
    let began = run.tick();
    let subscribed = store.subscribe(options).await;
    let ended = run.tick();
    run.subscribed.add_permits(1);
    let stream = follower.stream;
    let mut followed = Followed { stream, start, began, ended, told: Vec::new(), wrong: None };
    let mut live = match subscribed {
        Ok(live) => live,
        Err(error) => {
            followed.wrong = Some(format!("{error:?}"));
            return followed;
        }
    };
    let last = stream.unwrap_or(run.marks());
    let mut marks = run.last_marks.subscribe();
    let mut is_marked = false;
    while followed.wrong.is_none() {
        let told = tokio::select! {
            told = timeout(run.patience, live.next()) => told,
            // What is missing is then known to be missing, without waiting for it.
            _ = marks.wait_for(Option::is_some), if !is_marked => {
                is_marked = true;
                followed.wrong = misses_mark(&run, &followed, last);
                continue;
            }
        };
        let told = match told {
            Err(_) => {
                Err(format!("timed out after {:?}: its last mark has not come", run.patience))
            }
            Ok(Err(error)) => Err(format!("{error:?}")),
            Ok(Ok(Message::Event(event))) => run.see(&event).map(|seen| {
                (Told::Event(seen), event.event_type.as_str() == STOP && seen.stream == last)
            }),
            Ok(Ok(message)) => Ok((Told::UpTo(message.position().get()), false)),
        };
        match told {
            Err(why) => followed.wrong = Some(why),
            Ok((told, is_last)) => {
                followed.told.push((run.tick(), told));
                if is_last {
                    break;
                }
                followed.wrong = misses_mark(&run, &followed, last);
            }
        }
    }
    followed
}

/// What is wrong if a subscription has passed the position of its last mark without giving it.
fn misses_mark(run: &Run, followed: &Followed, stream: usize) -> Option<String> {
    let mark = run.last_marks.borrow().as_ref()?.get(stream).copied().filter(|at| *at > 0)?;
    let passed = match followed.told.last()?.1 {
        Told::Event(seen) => seen.position,
        Told::UpTo(position) => position,
    };
    (passed >= mark)
        .then(|| format!("it passed position {mark} without the mark that stands there"))
}
