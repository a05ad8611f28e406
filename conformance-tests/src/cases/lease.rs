//! Leases: their records, and the candidates that compete for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use annals_core::{Candidate, Error, LeaseName, LeaseRecord, LeaseStore, Result, Store};
use futures::future::try_join_all;
use tokio::{task::yield_now, time::interval};
use uuid::Uuid;

use crate::{
    Fault,
    case::{CaseResult, Context, cases},
    tools::{assert_due, done},
};

cases! { "lease":
    a_record_is_kept_as_it_is_written [24] Leases;
    a_record_replaces_only_the_one_before [24] Leases;
    one_of_many_swaps_succeeds [24] Leases;
    leases_are_kept_apart [24] Leases;
    records_outlive_every_handle [24] Leases Durable;
    one_candidate_at_a_time_holds_a_lease [24] Leases;
    a_released_lease_is_taken_at_once [24] Leases;
    a_holder_that_renews_is_not_replaced [24] Leases;
    a_holder_that_stops_is_replaced_after_its_time [24] Leases;
    the_record_tells_a_lost_answer [6, 24] Leases / LoseNextAnswer;
    a_candidate_survives_lost_answers [6, 24] Leases / LoseNextAnswer;
}

/// A time to live that does not run out during a case.
const LONG: Duration = Duration::from_secs(3_600);
/// A time to live that a case waits for.
const SHORT: Duration = Duration::from_millis(200);
/// How often a waiting candidate tries again.
const PAUSE: Duration = Duration::from_millis(5);

fn lease(name: &str) -> LeaseName {
    LeaseName::new(name).unwrap()
}

/// A record with which a new holder takes the lease.
fn record(revision: u64) -> LeaseRecord {
    LeaseRecord::new(revision, revision, Uuid::new_v4(), LONG)
}

fn candidate(store: &Arc<dyn Store>, ttl: Duration) -> Candidate {
    Candidate::new(store.clone(), lease("totals"), ttl)
}

/// Whether the call may succeed if it is made again.
fn passes(error: &Error) -> bool {
    error.is_retryable() || error.outcome_unknown()
}

/// Tries once to acquire the lease. An error after which a candidate tries again counts as not
/// held.
async fn acquire(candidate: &mut Candidate) -> Result<bool> {
    match candidate.acquire().await {
        Err(error) if passes(&error) => Ok(false),
        held => held,
    }
}

async fn wait_for(cx: &Context, candidate: &mut Candidate) -> Result<()> {
    let waiting = async {
        let mut pause = interval(PAUSE);
        while !acquire(candidate).await? {
            pause.tick().await;
        }
        done()
    };
    cx.within("a candidate to get the lease", waiting).await
}

async fn release(cx: &Context, candidate: &mut Candidate) -> Result<()> {
    let releasing = async {
        loop {
            match candidate.release().await {
                Err(error) if passes(&error) => yield_now().await,
                released => return released,
            }
        }
    };
    cx.within("a candidate to give the lease up", releasing).await
}

async fn a_record_is_kept_as_it_is_written(cx: Context) -> CaseResult {
    let (store, other) = (cx.open().await, cx.open().await);
    let greatest = i64::MAX.unsigned_abs();
    let records = [
        LeaseRecord::new(1, 1, Uuid::new_v4(), Duration::from_millis(1)),
        LeaseRecord::new(2, 1, Uuid::now_v7(), Duration::from_millis(12_345)),
        LeaseRecord::new(3, 3, Uuid::nil(), Duration::ZERO),
        LeaseRecord::new(4, greatest - 1, Uuid::max(), Duration::from_secs(86_400)),
        LeaseRecord::new(5, greatest, Uuid::new_v4(), Duration::from_millis(greatest)),
        // A record keeps the whole milliseconds of its time to live.
        LeaseRecord::new(6, 0, Uuid::new_v4(), Duration::from_micros(1_999)),
    ];
    for name in ["totals", "日本 'totals' \\ $1 ?", &"x".repeat(255)] {
        let name = lease(name);
        assert_due!(store.load_lease(&name).await?, None, "the record of a lease that nobody took");
        for record in &records {
            assert!(store.swap_lease(&name, record).await?, "{record:?}");
            for store in [&store, &other] {
                assert_due!(
                    store.load_lease(&name).await?.as_ref(),
                    Some(record),
                    "the record that is kept"
                );
            }
        }
    }
    Ok(())
}

async fn a_record_replaces_only_the_one_before(cx: Context) -> CaseResult {
    let (store, other, name) = (cx.open().await, cx.open().await, lease("totals"));
    let mut kept: Option<LeaseRecord> = None;
    for next in 1..=4_u64 {
        let wrong = [0, next - 1, next + 1, next + 2, 1 << 40, i64::MAX.unsigned_abs(), u64::MAX];
        for revision in wrong {
            let refused = other.swap_lease(&name, &record(revision)).await?;
            assert!(!refused, "revision {revision} was written, but the next one is {next}");
            assert_eq!(store.load_lease(&name).await?, kept, "a refused call has written");
        }
        let written = record(next);
        assert!(store.swap_lease(&name, &written).await?, "revision {next}");
        // The same record again is refused as well: this call is not the one that wrote it.
        assert!(!store.swap_lease(&name, &written).await?, "revision {next} was written twice");
        assert_due!(
            other.load_lease(&name).await?.as_ref(),
            Some(&written),
            "the record that another handle loads"
        );
        kept = Some(written);
    }
    Ok(())
}

async fn one_of_many_swaps_succeeds(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let name = lease("totals");
    for revision in 1..=12 {
        let swapping = (0..12).map(|n| {
            let (store, name, record) = (handles[n % 3].clone(), name.clone(), record(revision));
            tokio::spawn(async move {
                // Some tasks begin a little later than others.
                for _ in 0..n / 3 {
                    yield_now().await;
                }
                Ok::<_, Error>(store.swap_lease(&name, &record).await?.then_some(record))
            })
        });
        let mut done = Vec::new();
        for swapped in try_join_all(swapping).await.unwrap() {
            done.extend(swapped?);
        }
        assert_eq!(done.len(), 1, "several wrote revision {revision}: {done:?}");
        for store in &handles {
            assert_due!(
                store.load_lease(&name).await?.as_ref(),
                done.first(),
                "the record after a race for revision {revision}"
            );
        }
    }
    Ok(())
}

async fn leases_are_kept_apart(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let names = ["totals", "Totals", "totals ", "tot_ls", "tot%", "'totals'", "日本", "0", "#"];
    // Two names of the greatest length, which differ in their last byte.
    let long = ["a", "b"].map(|last| "x".repeat(254) + last);
    let names: Vec<_> = names.into_iter().chain(long.iter().map(String::as_str)).collect();
    for (count, name) in (1..).zip(&names) {
        for revision in 1..=count {
            let holder = Uuid::from_u128(count.into());
            let record = LeaseRecord::new(revision, 1, holder, LONG);
            assert!(store.swap_lease(&lease(name), &record).await?, "{name:?}");
        }
    }
    for (count, name) in (1..).zip(&names) {
        let kept = store.load_lease(&lease(name)).await?.unwrap();
        assert_eq!((kept.revision, kept.holder.as_u128()), (count, count.into()), "{name:?}");
    }
    // A lease and a checkpoint of the same name are kept apart, too.
    if store.capabilities().checkpoints {
        let subscriber = annals_core::SubscriberId::new("totals")?;
        assert_due!(
            store.load_checkpoint(&subscriber).await?,
            None,
            "the checkpoint with the name of a lease"
        );
        store.save_checkpoint(&subscriber, 7.into()).await?;
        assert_eq!(store.load_lease(&lease("totals")).await?.map(|kept| kept.revision), Some(1));
    }
    Ok(())
}

async fn records_outlive_every_handle(cx: Context) -> CaseResult {
    let name = lease("totals");
    let mut kept = None;
    for revision in 1..=3 {
        let store = cx.open().await;
        assert_due!(
            store.load_lease(&name).await?,
            kept,
            "the record that is there before revision {revision} is written"
        );
        let next = record(revision);
        assert!(
            store.swap_lease(&name, &next).await?,
            "the next revision must be written: {next:?}"
        );
        kept = Some(next);
    }
    Ok(())
}

/// A room that only the holder of the lease may enter.
#[derive(Default)]
struct Room {
    /// The token of the holder that is inside, or 0.
    inside: AtomicU64,
    /// The token of the last holder that entered.
    last: AtomicU64,
}

async fn one_candidate_at_a_time_holds_a_lease(cx: Context) -> CaseResult {
    let handles = cx.open_many(3).await;
    let room = Arc::new(Room::default());
    let rounds = 6;
    let working = (0..6).map(|n| {
        let (cx, room) = (cx.clone(), room.clone());
        let mut candidate = candidate(&handles[n % 3], LONG);
        tokio::spawn(async move {
            for _ in 0..rounds {
                wait_for(&cx, &mut candidate).await?;
                let token = candidate.token().expect("a holder must have a token");
                let other = room.inside.swap(token, SeqCst);
                assert_eq!(other, 0, "{token} got the lease while {other} had it");
                let last = room.last.swap(token, SeqCst);
                assert!(last < token, "token {token} after {last}");
                for _ in 0..3 {
                    yield_now().await;
                    let kept = acquire(&mut candidate).await?;
                    assert!(kept || candidate.token().is_some(), "the holder has lost the lease");
                    assert_eq!(candidate.token(), Some(token), "a renewal changed the token");
                }
                assert_eq!(room.inside.swap(0, SeqCst), token, "two holders were inside");
                release(&cx, &mut candidate).await?;
            }
            done()
        })
    });
    for worked in try_join_all(working).await.unwrap() {
        worked?;
    }
    // Each round of each candidate has taken the lease with a new token.
    let kept = handles[0].load_lease(&lease("totals")).await?.unwrap();
    assert!(kept.token >= 6 * rounds && kept.ttl.is_zero(), "{kept:?}");
    Ok(())
}

async fn a_released_lease_is_taken_at_once(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let [mut one, mut other] = [0, 1].map(|n| candidate(&handles[n], LONG));
    let mut last = 0;
    for _ in 0..5 {
        // This succeeds long before the time to live is over, since the other candidate released.
        wait_for(&cx, &mut one).await?;
        let token = one.token().unwrap();
        assert!(token > last, "token {token} after {last}");
        last = token;
        assert!(!acquire(&mut other).await?, "two candidates hold the lease");
        release(&cx, &mut one).await?;
        assert_due!(one.token(), None, "the token of a candidate that has released");
        std::mem::swap(&mut one, &mut other);
    }
    Ok(())
}

/// The token with which the lease was taken last, also if the lease has run out since.
async fn token(store: &Arc<dyn Store>) -> Result<u64> {
    Ok(store.load_lease(&lease("totals")).await?.map_or(0, |kept| kept.token))
}

async fn a_holder_that_renews_is_not_replaced(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let mut ttl = SHORT;
    let renewing = async {
        // On a busy machine the holder may not get to renew in time: then try with more time.
        'again: loop {
            let [mut holder, mut other] = [0, 1].map(|n| candidate(&handles[n], ttl));
            wait_for(&cx, &mut holder).await?;
            let (taken, began) = (token(&handles[0]).await?, Instant::now());
            let mut pause = interval(ttl / 20);
            while began.elapsed() < 4 * ttl || holder.token().is_none() {
                pause.tick().await;
                acquire(&mut holder).await?;
                if acquire(&mut other).await? {
                    assert_eq!(holder.token(), None, "replaced before its time");
                    assert!(
                        token(&handles[0]).await? > taken,
                        "the new holder must have a greater token than {taken}"
                    );
                    release(&cx, &mut other).await?;
                    ttl *= 2;
                    continue 'again;
                }
                let now = holder.token().unwrap_or(taken);
                assert_eq!(now, taken, "a renewal changed the token");
            }
            assert_eq!(token(&handles[1]).await?, taken, "a renewal changed the token");
            return done();
        }
    };
    cx.within("a holder to renew in time", renewing).await?;
    Ok(())
}

async fn a_holder_that_stops_is_replaced_after_its_time(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let [mut holder, mut next] = [0, 1].map(|n| candidate(&handles[n], SHORT));
    wait_for(&cx, &mut holder).await?;
    for _ in 0..3 {
        let taken = token(&handles[0]).await?;
        // From here on the holder does not renew. The next candidate first sees its record after
        // this moment, and so waits for at least the time to live.
        let began = Instant::now();
        wait_for(&cx, &mut next).await?;
        assert!(began.elapsed() >= SHORT, "replaced after {:?}", began.elapsed());
        assert_eq!(holder.token(), None, "the replaced holder believes to hold the lease");
        assert!(token(&handles[0]).await? > taken, "the new holder must have a greater token");
        assert!(!acquire(&mut holder).await?, "the replaced holder has renewed");
        // The new candidate has not seen the record before.
        holder = next;
        next = candidate(&handles[1], SHORT);
    }
    Ok(())
}

async fn the_record_tells_a_lost_answer(cx: Context) -> CaseResult {
    let (store, name) = (cx.open().await, lease("totals"));
    for revision in 1..=4 {
        let record = record(revision);
        cx.inject(Fault::LoseNextAnswer).await;
        match store.swap_lease(&name, &record).await {
            Err(error) => {
                assert!(error.outcome_unknown(), "the outcome must be unknown: {error:?}");
                assert!(error.is_retryable(), "the error must allow to try again: {error:?}");
            }
            // The store has looked at the record itself, and answers from it.
            Ok(swapped) => assert!(swapped, "the record was written, but the answer denies it"),
        }
        assert_due!(store.load_lease(&name).await?, Some(record), "the record after a lost answer");
    }
    Ok(())
}

async fn a_candidate_survives_lost_answers(cx: Context) -> CaseResult {
    let handles = cx.open_many(2).await;
    let [mut one, mut other] = [0, 1].map(|n| candidate(&handles[n], LONG));
    for _ in 0..2 {
        let mut token = None;
        for _ in 0..3 {
            cx.inject(Fault::LoseNextAnswer).await;
            wait_for(&cx, &mut one).await?;
            let now = one.token();
            assert!(token.is_none() || token == now, "{token:?} became {now:?}");
            token = now;
            assert!(!acquire(&mut other).await?, "two candidates hold the lease");
        }
        cx.inject(Fault::LoseNextAnswer).await;
        release(&cx, &mut one).await?;
        wait_for(&cx, &mut other).await?;
        assert!(other.token() > token, "{:?} after {token:?}", other.token());
        std::mem::swap(&mut one, &mut other);
    }
    Ok(())
}
