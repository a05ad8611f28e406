//! The cases that every sink passes.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use annals_core::Position;
use annals_domain::projection::Sink;
use annals_test_servers::BoxError;
use fastrand::Rng;

use crate::{
    Tested,
    place::{Place, at, name, next, step},
};

pub(crate) async fn begins_with_nothing<P: Place>() -> Tested {
    let place = P::new().await?;
    let sink = place.open().await?;
    assert_eq!(sink.position(&name("a")).await?, None);
    drop(sink.begin().await?);
    assert_eq!(sink.position(&name("a")).await?, None);
    Ok(())
}

pub(crate) async fn commits<P: Place>() -> Tested {
    let place = P::new().await?;
    let (sink, a) = (place.open().await?, name("a"));
    assert!(step::<P>(&sink, &a, None, at(1)).await?);
    assert_eq!(sink.position(&a).await?, Some(at(1)));
    // Several in one transaction.
    let mut transaction = sink.begin().await?;
    assert!(sink.advance(&mut transaction, &a, Some(at(1)), at(2)).await?);
    assert!(sink.advance(&mut transaction, &a, Some(at(2)), Position::from_i64(i64::MAX)).await?);
    sink.commit(transaction).await?;
    assert_eq!(place.open().await?.position(&a).await?, Some(Position::from_i64(i64::MAX)));
    assert_eq!(place.read(&a).await?, (Some(i64::MAX), vec![1]));
    Ok(())
}

pub(crate) async fn is_undone_when_dropped<P: Place>() -> Tested {
    let place = P::new().await?;
    let (sink, a) = (place.open().await?, name("a"));
    for from in [None, Some(at(1))] {
        let before = place.read(&a).await?;
        for is_dropped in [false, true] {
            let mut transaction = sink.begin().await?;
            assert!(sink.advance(&mut transaction, &a, from, next(from)).await?);
            P::write(&mut transaction, &a, next(from)).await?;
            if is_dropped {
                drop(transaction);
            } else {
                P::roll_back(transaction).await?;
            }
            assert_eq!(sink.position(&a).await?, from);
            assert_eq!(place.read(&a).await?, before);
        }
        assert!(step::<P>(&sink, &a, from, next(from)).await?);
    }
    assert_eq!(place.read(&a).await?, (Some(2), vec![1, 2]));
    Ok(())
}

pub(crate) async fn moves_only_from_where_it_is<P: Place>() -> Tested {
    let place = P::new().await?;
    let (sink, a) = (place.open().await?, name("a"));
    for from in [Some(Position::START), Some(at(1))] {
        assert!(!step::<P>(&sink, &a, from, at(9)).await?, "nothing is there");
    }
    assert_eq!(place.read(&a).await?, (None, vec![]));
    assert!(step::<P>(&sink, &a, None, at(5)).await?);
    for from in [None, Some(Position::START), Some(at(4)), Some(at(6))] {
        let mut transaction = sink.begin().await?;
        assert!(!sink.advance(&mut transaction, &a, from, at(9)).await?, "from {from:?}");
        sink.commit(transaction).await?;
        assert_eq!(place.read(&a).await?, (Some(5), vec![5]), "from {from:?}");
    }
    // Back, as for a projection that is run again.
    assert!(step::<P>(&sink, &a, Some(at(5)), at(3)).await?);
    assert_eq!(sink.position(&a).await?, Some(at(3)));
    Ok(())
}

pub(crate) async fn second_waits_for_the_first<P: Place>() -> Tested {
    let place = P::new().await?;
    for commits in [false, true] {
        for from in [None, Some(at(1))] {
            let (first, second) = (place.open().await?, place.open().await?);
            let a = name(&format!("{commits} {from:?}"));
            if from.is_some() {
                assert!(step::<P>(&first, &a, None, at(1)).await?);
            }
            let mut transaction = first.begin().await?;
            assert!(first.advance(&mut transaction, &a, from, at(2)).await?);
            P::write(&mut transaction, &a, at(2)).await?;
            let other = a.clone();
            let other = tokio::spawn(async move { step::<P>(&second, &other, from, at(3)).await });
            place.until_one_waits().await?;
            assert!(!other.is_finished(), "the second does not wait");
            if commits {
                first.commit(transaction).await?;
            } else {
                drop(transaction);
            }
            assert_eq!(other.await??, !commits);
            let (position, rows) = place.read(&a).await?;
            assert_eq!(position, Some(if commits { 2 } else { 3 }));
            assert_eq!(rows.last().copied(), position);
            assert_eq!(rows.len(), 1 + usize::from(from.is_some()));
        }
    }
    Ok(())
}

pub(crate) async fn keeps_names_apart<P: Place>() -> Tested {
    let place = P::new().await?;
    let sink = place.open().await?;
    let names = ["a", "A", "a ", "a'; DROP TABLE rows --", "ä", "%"].map(name);
    for (to, name) in (1..).zip(&names) {
        assert!(step::<P>(&sink, name, None, at(to)).await?);
    }
    for (to, name) in (1..).zip(&names) {
        assert_eq!(sink.position(name).await?, Some(at(to)));
        assert_eq!(place.read(name).await?, (to.try_into().ok(), vec![to.try_into()?]));
    }
    Ok(())
}

/// Many tasks move one checkpoint, each once, from wherever it is by then.
pub(crate) async fn many_take_turns<P: Place>() -> Tested {
    const TASKS: usize = 40;
    let (place, a) = (P::new().await?, name("a"));
    let mut sinks = Vec::new();
    for _ in 0..4 {
        sinks.push(place.open().await?);
    }
    let tasks = sinks.iter().cycle().take(TASKS).map(|sink| {
        let (sink, a) = (sink.clone(), a.clone());
        tokio::spawn(async move {
            loop {
                let from = sink.position(&a).await?;
                if step::<P>(&sink, &a, from, next(from)).await? {
                    return Ok::<_, BoxError>(());
                }
            }
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        task.await??;
    }
    let rows: Vec<_> = (1..=TASKS as i64).collect();
    assert_eq!(place.read(&a).await?, (Some(TASKS as i64), rows));
    Ok(())
}

pub(crate) async fn many_create_the_table<P: Place>() -> Tested {
    for _ in 0..5 {
        let place = Arc::new(P::new().await?);
        let open = |to: String| {
            let place = place.clone();
            async move { step::<P>(&place.open().await?, &name(&to), None, at(1)).await }
        };
        let tasks: Vec<_> = (0..10).map(|task| tokio::spawn(open(task.to_string()))).collect();
        for task in tasks {
            assert!(task.await??);
        }
    }
    Ok(())
}

/// Polls a future at most `count` times, then drops it: at once or, if `late`, when it is woken again.
pub(crate) async fn polls<T>(
    future: impl Future<Output = T>,
    mut count: usize,
    late: bool,
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|context| {
        if count == 0 {
            return Poll::Ready(None);
        }
        count -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if count == 0 && !late => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Rows and checkpoint always agree, wherever a step is dropped.
pub(crate) async fn is_left_anywhere<P: Place>() -> Tested {
    const ROUNDS: usize = 300;
    /// More polls than a step takes.
    const POLLS: usize = 16;
    let given = std::env::var("ANNALS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{}: replay with ANNALS_SEED={seed}", std::any::type_name::<P>());
    let mut random = Rng::with_seed(seed);
    let (place, a) = (P::new().await?, name("a"));
    let sink = place.open().await?;
    let (mut done, mut left) = (0, 0);
    for round in 0..ROUNDS {
        let from = sink.position(&a).await?;
        let work = step::<P>(&sink, &a, from, next(from));
        match polls(work, random.usize(..POLLS), random.bool()).await.transpose()? {
            Some(_) => done += 1,
            None => left += 1,
        }
        let (position, rows) = place.read(&a).await?;
        let reached = position.unwrap_or(0);
        let before = from.unwrap_or_default().to_i64();
        assert!((before..=before + 1).contains(&reached), "round {round}, seed {seed}");
        assert_eq!(rows, (1..=reached).collect::<Vec<_>>(), "round {round}, seed {seed}");
    }
    assert!(done > 0 && left > 0, "{done} steps were done and {left} left, with seed {seed}");
    place.until_none_is_open().await?;
    let from = sink.position(&a).await?;
    assert!(step::<P>(&sink, &a, from, next(from)).await?);
    Ok(())
}

/// A dropped `begin` leaves no open transaction, even if no other call follows.
pub(crate) async fn begins_are_left_anywhere<P: Place>() -> Tested {
    let place = P::new().await?;
    let sink = place.open().await?;
    for round in 0..40 {
        drop(polls(sink.begin(), round % 5, round % 2 == 0).await.transpose()?);
        polls(sink.position(&name("a")), round % 4, round % 2 == 0).await.transpose()?;
    }
    place.until_none_is_open().await?;
    assert!(step::<P>(&sink, &name("a"), None, at(1)).await?);
    Ok(())
}
