//! Checkpoints: the last position of each subscriber is kept.

use annals_core::{Position, SubscriberId};
use futures::future::try_join_all;

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_due, done},
};

cases! { "checkpoint":
    a_checkpoint_never_moves_back [22] Checkpoints;
    a_checkpoint_moves_back_when_asked_to [22] Checkpoints;
    checkpoints_are_kept_apart [22] Checkpoints;
    racing_checkpoints_leave_the_greatest [22] Checkpoints;
    a_checkpoint_is_swapped_from_where_it_is [22] Checkpoints;
    one_of_many_swaps_moves_a_checkpoint [22] Checkpoints;
}

fn subscriber(name: &str) -> SubscriberId {
    SubscriberId::new(name).unwrap()
}

async fn a_checkpoint_never_moves_back(cx: Context) -> CaseResult {
    let (store, other, report) = (cx.open().await, cx.open().await, subscriber("report"));
    assert_due!(
        store.load_checkpoint(&report).await?,
        None,
        "the checkpoint of a subscriber that saved none"
    );
    let mut greatest = Position::START;
    for position in [0, 5, 3, 5, 0, 1 << 40, 6, i64::MAX as u64] {
        let position = Position::new(position);
        greatest = greatest.max(position);
        assert_eq!(
            store.save_checkpoint(&report, position).await?,
            greatest,
            "not the position that is kept"
        );
        assert_due!(
            other.load_checkpoint(&report).await?,
            Some(greatest),
            "the checkpoint that another handle loads after {position} was saved"
        );
    }
    Ok(())
}

async fn a_checkpoint_moves_back_when_asked_to(cx: Context) -> CaseResult {
    let (store, report) = (cx.open().await, subscriber("report"));
    store.save_checkpoint(&report, 9.into()).await?;
    store.reset_checkpoint(&report, Some(4.into())).await?;
    assert_due!(
        store.load_checkpoint(&report).await?,
        Some(4.into()),
        "the checkpoint after 9 was saved and 4 was set"
    );
    assert_due!(
        store.save_checkpoint(&report, 5.into()).await?,
        5.into(),
        "the checkpoint that is kept after 4 was set and 5 was saved"
    );
    store.reset_checkpoint(&report, None).await?;
    assert_due!(store.load_checkpoint(&report).await?, None, "the checkpoint after it was removed");
    store.reset_checkpoint(&report, None).await?;
    store.reset_checkpoint(&report, Some(7.into())).await?;
    assert_due!(
        store.load_checkpoint(&report).await?,
        Some(7.into()),
        "the checkpoint after it was removed and 7 was set"
    );
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

async fn a_checkpoint_is_swapped_from_where_it_is(cx: Context) -> CaseResult {
    let (store, other, report) = (cx.open().await, cx.open().await, subscriber("report"));
    let at = |position: u64| Some(position.into());
    // Where it stands, where it is expected, where it is to go, and whether it stands there then.
    for (stands, expected, to, moves) in [
        (None, None, 5, true),
        (None, at(4), 5, false),
        (None, at(0), 5, false),
        (at(4), at(4), 5, true),
        (at(0), at(0), 5, true),
        (at(4), at(3), 5, false),
        (at(4), None, 5, false),
        (at(0), None, 5, false),
        (at(9), at(9), 5, true),
        // As after an answer that was lost.
        (at(5), at(4), 5, true),
        (at(5), None, 5, true),
        (at(0), None, 0, true),
    ] {
        store.reset_checkpoint(&report, stands).await?;
        let what = format!("from {expected:?} to {to}, while it stands at {stands:?}");
        assert_eq!(other.swap_checkpoint(&report, expected, to.into()).await?, moves, "{what}");
        let kept = store.load_checkpoint(&report).await?;
        assert_eq!(kept, if moves { at(to) } else { stands }, "{what}");
    }
    Ok(())
}

async fn one_of_many_swaps_moves_a_checkpoint(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    for round in 0..5 {
        let from = (round > 0).then(|| Position::new(round * 100));
        handles[0].reset_checkpoint(&subscriber("report"), from).await?;
        let swaps = (1..=12u64).map(|n| {
            let (store, to) = (handles[n as usize % 2].clone(), Position::new(round * 100 + n));
            tokio::spawn(async move {
                let moved = store.swap_checkpoint(&subscriber("report"), from, to).await?;
                Ok::<_, crate::case::Stop>(moved.then_some(to))
            })
        });
        let mut winners = Vec::new();
        for swapped in try_join_all(swaps).await.unwrap() {
            winners.extend(swapped?);
        }
        assert_eq!(winners.len(), 1, "the checkpoint was moved to {winners:?}");
        let kept = handles[1].load_checkpoint(&subscriber("report")).await?;
        assert_due!(kept, Some(winners[0]), "the checkpoint after the race");
    }
    Ok(())
}
