//! Checkpoints: the last position of each subscriber is kept.

use annals_core::{Position, SubscriberId};
use futures::future::try_join_all;

use crate::{
    case::{CaseResult, Context, cases},
    tools::done,
};

cases! { "checkpoint":
    a_checkpoint_never_moves_back [22] Checkpoints;
    a_checkpoint_moves_back_when_asked_to [22] Checkpoints;
    checkpoints_are_kept_apart [22] Checkpoints;
    racing_checkpoints_leave_the_greatest [22] Checkpoints;
}

fn subscriber(name: &str) -> SubscriberId {
    SubscriberId::new(name).unwrap()
}

async fn a_checkpoint_never_moves_back(cx: Context) -> CaseResult {
    let (store, other, report) = (cx.open().await, cx.open().await, subscriber("report"));
    assert_eq!(store.load_checkpoint(&report).await?, None);
    let mut greatest = Position::START;
    for position in [0, 5, 3, 5, 0, 1 << 40, 6, i64::MAX as u64] {
        let position = Position::new(position);
        greatest = greatest.max(position);
        assert_eq!(
            store.save_checkpoint(&report, position).await?,
            greatest,
            "not the position that is kept"
        );
        assert_eq!(other.load_checkpoint(&report).await?, Some(greatest));
    }
    Ok(())
}

async fn a_checkpoint_moves_back_when_asked_to(cx: Context) -> CaseResult {
    let (store, report) = (cx.open().await, subscriber("report"));
    store.save_checkpoint(&report, 9.into()).await?;
    store.reset_checkpoint(&report, Some(4.into())).await?;
    assert_eq!(store.load_checkpoint(&report).await?, Some(4.into()));
    assert_eq!(store.save_checkpoint(&report, 5.into()).await?, 5.into());
    store.reset_checkpoint(&report, None).await?;
    assert_eq!(store.load_checkpoint(&report).await?, None);
    store.reset_checkpoint(&report, None).await?;
    store.reset_checkpoint(&report, Some(7.into())).await?;
    assert_eq!(store.load_checkpoint(&report).await?, Some(7.into()));
    Ok(())
}

async fn checkpoints_are_kept_apart(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names = ["report", "Report", "report ", "re_ort", "re%", "'report'", "日本"];
    for (position, name) in (1u64..).zip(names) {
        store.save_checkpoint(&subscriber(name), position.into()).await?;
    }
    store.reset_checkpoint(&subscriber("Report"), None).await?;
    for (position, name) in (1u64..).zip(names) {
        let due = (name != "Report").then_some(position.into());
        assert_eq!(store.load_checkpoint(&subscriber(name)).await?, due, "{name:?}");
    }
    Ok(())
}

async fn racing_checkpoints_leave_the_greatest(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let mut positions: Vec<u64> = (1..=40).collect();
    cx.rng(0).shuffle(&mut positions);
    let saving = positions.into_iter().map(|position| {
        let store = handles[position as usize % 2].clone();
        tokio::spawn(async move {
            let kept = store.save_checkpoint(&subscriber("report"), position.into()).await?;
            assert!(kept.get() >= position, "saved {position}, but {kept} is kept");
            done()
        })
    });
    for saved in try_join_all(saving).await.unwrap() {
        saved?;
    }
    assert_eq!(handles[0].load_checkpoint(&subscriber("report")).await?, Some(40.into()));
    Ok(())
}
