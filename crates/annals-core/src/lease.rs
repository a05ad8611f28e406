//! Leases: one of several processes at a time may do a piece of work.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use uuid::Uuid;

use crate::{Error, LeaseName, Result};

/// What a store keeps of a lease. The record contains no time of day: each candidate judges by its
/// own steady clock whether the lease has expired (see [`Candidate`]), so no two clocks have to
/// agree.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseRecord {
    /// Counts the writes of this record, from 1.
    pub revision: u64,
    /// The fencing token: the revision with which the holder took the lease. Every later holder has
    /// a greater token, so a system that compares tokens can refuse the writes of a holder that has
    /// been replaced.
    pub token: u64,
    /// The holder: the id of one [`Candidate`], which no other candidate has.
    pub holder: Uuid,
    /// The time to live: how long another candidate must have seen this revision before it may
    /// take the lease. Zero means that the holder gave the lease up.
    pub ttl: Duration,
}

impl LeaseRecord {
    /// A record. The time to live is cut to whole milliseconds, which is what every store keeps.
    #[must_use]
    pub fn new(revision: u64, token: u64, holder: Uuid, ttl: Duration) -> Self {
        Self { revision, token, holder, ttl: whole_millis(ttl) }
    }

    /// For adapters: the numbers of the record as signed integers: revision, token, and the time to
    /// live in milliseconds. A number that is too large for `i64` becomes `i64::MAX`.
    #[must_use]
    pub fn to_stored(&self) -> [i64; 3] {
        let millis = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        [self.revision, self.token, millis].map(|number| i64::try_from(number).unwrap_or(i64::MAX))
    }

    /// For adapters: the reverse of [`LeaseRecord::to_stored`]. A negative number, which no record
    /// has, becomes 0.
    #[must_use]
    pub fn from_stored(numbers: [i64; 3], holder: Uuid) -> Self {
        let [revision, token, millis] = numbers.map(|number| u64::try_from(number).unwrap_or(0));
        Self::new(revision, token, holder, Duration::from_millis(millis))
    }
}

/// Cuts a time to what a store keeps: whole milliseconds that fit into an `i64`.
fn whole_millis(time: Duration) -> Duration {
    let most = i64::MAX.unsigned_abs();
    Duration::from_millis(u64::try_from(time.as_millis()).map_or(most, |millis| millis.min(most)))
}

/// Keeps the records of leases. Applications do not call this trait; they use a [`Candidate`]. A
/// method that a store does not implement refuses with
/// [`Unsupported`](crate::ErrorKind::Unsupported).
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// The newest record of a lease; `None` if nobody ever held the lease.
    async fn load_lease(&self, _name: &LeaseName) -> Result<Option<LeaseRecord>> {
        Err(Error::unsupported("leases"))
    }

    /// Compares and swaps: writes this record if the store holds the record of the revision before
    /// it, or no record if this one has revision 1. Returns whether this call wrote it. Of any
    /// number of calls with the same revision, even with equal records, at most one gets `true`. A
    /// record stays for ever.
    ///
    /// # Errors
    /// If [`Error::outcome_unknown`], [`LeaseStore::load_lease`] tells whether the record was
    /// written.
    async fn swap_lease(&self, _name: &LeaseName, _record: &LeaseRecord) -> Result<bool> {
        Err(Error::unsupported("leases"))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<T: LeaseStore + ?Sized> LeaseStore for Arc<T> {
    async fn load_lease(&self, name: &LeaseName) -> Result<Option<LeaseRecord>> {
        (**self).load_lease(name).await
    }

    async fn swap_lease(&self, name: &LeaseName, record: &LeaseRecord) -> Result<bool> {
        (**self).swap_lease(name, record).await
    }
}

/// A candidate for a lease: it takes the lease when it can, and then renews it. It has no timer of
/// its own: the caller decides when to call [`Candidate::acquire`] again, and can cancel the call.
///
/// A candidate takes the lease of another one when the record has stood unchanged for its time to
/// live since *this* candidate first saw it. So a new candidate waits that long even if the holder
/// died long ago, unless the holder gave the lease up. The holder counts from *before* it sent its
/// last renewal, which is earlier than any other candidate can have seen it: while
/// [`Candidate::token`] returns a token, nobody else holds the lease.
///
/// A write that the holder began before its lease expired can still arrive afterwards, and so can
/// any write of a machine whose clock stood still while the machine slept. Send the token with such
/// writes, and let their receiver refuse a token smaller than the greatest it has seen.
///
/// ```
/// # use std::{sync::Arc, time::Duration};
/// # use annals_core::{Candidate, LeaseName, LeaseStore, Result};
/// # async fn lead(store: Arc<dyn LeaseStore>) -> Result<()> {
/// let mut candidate = Candidate::new(store, LeaseName::new("totals")?, Duration::from_secs(10));
/// while !candidate.acquire().await? { /* wait a second */ }
/// while candidate.acquire().await? { /* work for three seconds with candidate.token() */ }
/// # Ok(()) }
/// ```
pub struct Candidate {
    store: Arc<dyn LeaseStore>,
    name: LeaseName,
    holder: Uuid,
    ttl: Duration,
    /// The newest record that this candidate knows, and when it first saw that record.
    seen: Option<(LeaseRecord, Instant)>,
    /// The last record that this candidate sent to take or renew the lease, and when it first sent
    /// that record.
    sent: Option<(LeaseRecord, Instant)>,
    /// Until when this candidate holds the lease; `None` if it does not.
    until: Option<Instant>,
    /// Whether a call was begun whose outcome is not known yet, so that `seen` may be outdated.
    unsure: bool,
}

impl Candidate {
    /// A candidate that does not hold the lease yet. The time to live is cut to whole milliseconds,
    /// and is at least one.
    #[must_use]
    pub fn new(store: Arc<dyn LeaseStore>, name: LeaseName, ttl: Duration) -> Self {
        // The store keeps whole milliseconds, and other candidates judge by what it keeps.
        let ttl = whole_millis(ttl).max(Duration::from_millis(1));
        let holder = Uuid::now_v7();
        Self { store, name, holder, ttl, seen: None, sent: None, until: None, unsure: false }
    }

    /// The fencing token, while this candidate holds the lease; else `None`.
    #[must_use]
    pub fn token(&self) -> Option<u64> {
        let (record, _) = self.seen.as_ref()?;
        self.until.filter(|until| Instant::now() < *until).map(|_| record.token)
    }

    /// The id of this candidate, by which [`LeaseRecord::holder`] names it.
    #[must_use]
    pub fn holder(&self) -> Uuid {
        self.holder
    }

    /// The newest record of the lease that this candidate knows: it says who holds the lease, and may
    /// be out of date. `None` before the first call of [`Candidate::acquire`], and if nobody has held
    /// the lease by then.
    #[must_use]
    pub fn record(&self) -> Option<&LeaseRecord> {
        self.seen.as_ref().map(|(record, _)| record)
    }

    /// How long this candidate still holds the lease if it does not renew it; zero if it does not
    /// hold it.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Takes the lease if it is free or expired, or renews it. Returns whether this candidate holds
    /// the lease now: it does not if the store took longer than the time to live to answer. A holder
    /// that renews too late, but that nobody has replaced, keeps its token.
    ///
    /// # Errors
    /// The errors of the store. A holder keeps the lease until its time to live is over, so it can
    /// call again.
    pub async fn acquire(&mut self) -> Result<bool> {
        // A holder knows that its own record is the newest, so a renewal is one call to the store.
        if self.until.is_none() || self.unsure {
            self.look().await?;
        }
        let Some(record) = self.next() else { return Ok(false) };
        let now = Instant::now();
        // An equal record that was sent before and seemed lost may have arrived, and the other
        // candidates count from when they saw it: not before it was first sent.
        let first = match &self.sent {
            Some((sent, first)) if *sent == record => *first,
            _ => now,
        };
        self.sent = Some((record.clone(), first));
        self.unsure = true;
        let swapped = self.store.swap_lease(&self.name, &record).await;
        if let Ok(true) = swapped {
            self.until = now.checked_add(self.ttl);
            self.seen = Some((record, now));
            self.unsure = false;
            return Ok(self.token().is_some());
        }
        if let Err(error) = self.look().await {
            return Err(swapped.err().unwrap_or(error));
        }
        // The record may have been written although the call failed or returned `false`: another
        // call with an equal record can have written it.
        if self.seen.as_ref().is_some_and(|(seen, _)| *seen == record) {
            self.until = first.checked_add(self.ttl);
            return Ok(self.token().is_some());
        }
        swapped.map(|_| self.token().is_some())
    }

    /// Gives the lease up, so that the next candidate need not wait, even if it is not known whether
    /// this candidate holds it. From now on this candidate does not hold it.
    ///
    /// # Errors
    /// The errors of the store. Call again, or else the lease expires after its time to live.
    pub async fn release(&mut self) -> Result<()> {
        self.until = None;
        // An earlier write that had seemed lost can arrive first and make the swap fail. There can
        // be only one such write, since it changes the revision, so try at most twice.
        for _ in 0..2 {
            if self.unsure {
                self.look().await?;
            }
            let Some(seen) = self.mine() else { return Ok(()) };
            let revision = seen.revision.saturating_add(1);
            let record = LeaseRecord::new(revision, seen.token, self.holder, Duration::ZERO);
            self.unsure = true;
            if self.store.swap_lease(&self.name, &record).await? {
                break;
            }
        }
        Ok(())
    }

    /// The newest known record, if it says that this candidate holds the lease.
    fn mine(&self) -> Option<&LeaseRecord> {
        let (seen, _) = self.seen.as_ref()?;
        (seen.holder == self.holder && !seen.ttl.is_zero()).then_some(seen)
    }

    /// The record that takes or renews the lease; `None` while another candidate holds it.
    fn next(&self) -> Option<LeaseRecord> {
        let Some((seen, since)) = &self.seen else {
            return Some(LeaseRecord::new(1, 1, self.holder, self.ttl));
        };
        let revision = seen.revision.saturating_add(1);
        let token = match self.mine() {
            Some(mine) => mine.token,
            None if since.elapsed() < seen.ttl => return None,
            None => revision,
        };
        Some(LeaseRecord::new(revision, token, self.holder, self.ttl))
    }

    /// Loads the newest record from the store.
    async fn look(&mut self) -> Result<()> {
        let newest = self.store.load_lease(&self.name).await?;
        let known = self.seen.as_ref().map(|(record, _)| record);
        if known != newest.as_ref() {
            self.seen = newest.map(|record| (record, Instant::now()));
        }
        if self.mine().is_none() {
            self.until = None;
        }
        self.unsure = false;
        Ok(())
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, holder, ttl, seen, .. } = self;
        f.debug_struct("Candidate")
            .field("name", name)
            .field("holder", holder)
            .field("ttl", ttl)
            .field("seen", seen)
            .field("token", &self.token())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, MutexGuard},
    };

    use futures::{FutureExt, future};

    use super::*;
    use crate::ErrorKind;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);
    /// Short enough for a test to wait for.
    const SHORT: Duration = Duration::from_millis(100);

    /// What happens to the next write.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Swap {
        /// The record is written, and the answer is lost.
        LosesAnswer,
        /// The record is written, and the answer denies it.
        Denies,
        /// The record is written, and the answer never comes.
        Hangs,
        /// The record is written, and the answer takes longer than [`SHORT`].
        Dawdles,
        /// The record is not written.
        Fails,
        /// The record is not written until [`Fake::arrive`] is called.
        Lags,
        /// The records that lag arrive just before this one.
        IsOvertaken,
    }

    #[derive(Default)]
    struct Fake(Mutex<State>);

    #[derive(Default)]
    struct State {
        kept: Option<LeaseRecord>,
        swaps: VecDeque<Swap>,
        late: Vec<LeaseRecord>,
        /// For each of the next loads, whether it fails.
        failing: VecDeque<bool>,
        calls: usize,
    }

    impl Fake {
        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap()
        }

        fn next(&self, swaps: impl IntoIterator<Item = Swap>) {
            self.state().swaps.extend(swaps);
        }

        fn kept(&self) -> LeaseRecord {
            self.state().kept.clone().unwrap()
        }

        fn arrive(&self) {
            let mut state = self.state();
            for record in std::mem::take(&mut state.late) {
                state.swap(&record);
            }
        }
    }

    impl State {
        fn swap(&mut self, record: &LeaseRecord) -> bool {
            let is_next = self.kept.as_ref().map_or(0, |kept| kept.revision) + 1 == record.revision;
            if is_next {
                self.kept = Some(record.clone());
            }
            is_next
        }
    }

    fn lost() -> Error {
        Error::new(ErrorKind::Unavailable, "no answer").with_outcome_unknown()
    }

    #[async_trait]
    impl LeaseStore for Fake {
        async fn load_lease(&self, _: &LeaseName) -> Result<Option<LeaseRecord>> {
            let mut state = self.state();
            state.calls += 1;
            if state.failing.pop_front().unwrap_or(false) {
                return Err(Error::new(ErrorKind::Busy, "a load failed"));
            }
            Ok(state.kept.clone())
        }

        async fn swap_lease(&self, _: &LeaseName, record: &LeaseRecord) -> Result<bool> {
            let next = {
                let mut state = self.state();
                state.calls += 1;
                state.swaps.pop_front()
            };
            match next {
                Some(Swap::Fails) => return Err(Error::new(ErrorKind::Busy, "a swap failed")),
                Some(Swap::Lags) => {
                    self.state().late.push(record.clone());
                    return Err(lost());
                }
                Some(Swap::IsOvertaken) => self.arrive(),
                _ => {}
            }
            let swapped = self.state().swap(record);
            match next {
                Some(Swap::LosesAnswer) => Err(lost()),
                Some(Swap::Denies) => Ok(false),
                Some(Swap::Hangs) => future::pending().await,
                Some(Swap::Dawdles) => {
                    spin(SHORT);
                    Ok(swapped)
                }
                _ => Ok(swapped),
            }
        }
    }

    fn candidate(store: &Arc<Fake>, ttl: Duration) -> Candidate {
        Candidate::new(store.clone(), LeaseName::new("totals").unwrap(), ttl)
    }

    fn acquire(candidate: &mut Candidate) -> Result<bool> {
        let held = candidate.acquire().now_or_never().unwrap();
        if let Ok(held) = held {
            assert_eq!(held, candidate.token().is_some());
            assert_eq!(held, !candidate.remaining().is_zero());
        }
        held
    }

    fn release(candidate: &mut Candidate) -> Result<()> {
        let released = candidate.release().now_or_never().unwrap();
        assert_eq!(candidate.token(), None);
        released
    }

    fn spin(time: Duration) {
        let began = Instant::now();
        while began.elapsed() <= time {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn a_holder_keeps_its_token_in_one_call() {
        let store = Arc::new(Fake::default());
        let (mut holder, mut other) = (candidate(&store, LONG), candidate(&store, LONG));
        for revision in 1..=5 {
            let before = store.state().calls;
            assert!(acquire(&mut holder).unwrap());
            assert_eq!(holder.token(), Some(1));
            assert_eq!(store.kept(), LeaseRecord::new(revision, 1, holder.holder, LONG));
            assert!(revision == 1 || store.state().calls == before + 1);
            assert!(!acquire(&mut other).unwrap());
        }
        assert_eq!(store.kept().revision, 5, "a waiting candidate wrote");
    }

    #[test]
    fn one_who_stopped_is_replaced_after_its_time_and_not_before() {
        let store = Arc::new(Fake::default());
        let (mut holder, mut other) = (candidate(&store, SHORT), candidate(&store, LONG));
        assert!(acquire(&mut holder).unwrap());
        let seen = Instant::now();
        while !acquire(&mut other).unwrap() {
            assert!(seen.elapsed() < LONG);
        }
        assert!(seen.elapsed() >= SHORT);
        assert_eq!((holder.token(), other.token()), (None, Some(2)));
        assert!(!acquire(&mut holder).unwrap());
        // The lease belongs to the other candidate now, so there is nothing to give up.
        release(&mut holder).unwrap();
        assert_eq!(store.kept(), LeaseRecord::new(2, 2, other.holder, LONG));
    }

    #[test]
    fn one_who_was_late_and_not_replaced_goes_on() {
        let store = Arc::new(Fake::default());
        let mut holder = candidate(&store, SHORT);
        assert!(acquire(&mut holder).unwrap());
        spin(SHORT);
        assert_eq!((holder.token(), holder.remaining()), (None, Duration::ZERO));
        assert!(acquire(&mut holder).unwrap());
        assert_eq!(holder.token(), Some(1));
    }

    #[test]
    fn what_was_given_up_is_taken_at_once() {
        let store = Arc::new(Fake::default());
        let (mut one, mut other) = (candidate(&store, LONG), candidate(&store, LONG));
        release(&mut one).unwrap();
        assert_eq!(store.state().calls, 0, "there is nothing to give up");
        let mut last = 0;
        for _ in 0..5 {
            // The second round is by the candidate that gave the lease up: that is no renewal.
            for candidate in [&mut one, &mut other] {
                for _ in 0..2 {
                    assert!(acquire(candidate).unwrap());
                    let token = candidate.token().unwrap();
                    assert!(token > last, "{token} after {last}");
                    last = token;
                    release(candidate).unwrap();
                    assert_eq!(store.kept().ttl, Duration::ZERO);
                }
            }
        }
    }

    #[test]
    fn what_was_written_is_adopted_whatever_the_answer() {
        for first in [Swap::LosesAnswer, Swap::Denies] {
            let store = Arc::new(Fake::default());
            let mut holder = candidate(&store, LONG);
            for revision in 1..=3 {
                store.next([first]);
                assert!(acquire(&mut holder).unwrap(), "{first:?}");
                assert_eq!(holder.token(), Some(1));
                assert_eq!(store.kept().revision, revision);
            }
        }
    }

    #[test]
    fn a_lost_answer_that_nothing_tells_is_told_next_time() {
        for first in [Swap::LosesAnswer, Swap::Denies] {
            let store = Arc::new(Fake::default());
            let mut holder = candidate(&store, LONG);
            store.next([first]);
            // `acquire` loads the record before it writes, and again after a failed write.
            store.state().failing.extend([false, true]);
            acquire(&mut holder).unwrap_err();
            assert_eq!((holder.token(), store.kept().revision), (None, 1));
            assert!(acquire(&mut holder).unwrap());
            assert_eq!(holder.token(), Some(1), "not the token under which it was written");

            // A holder does not load the record before it writes, and keeps the lease.
            store.next([first]);
            store.state().failing.extend([true, true]);
            for _ in 0..2 {
                acquire(&mut holder).unwrap_err();
                assert_eq!(holder.token(), Some(1));
            }
            assert!(acquire(&mut holder).unwrap());
            assert_eq!((holder.token(), store.kept().revision), (Some(1), 4));
        }
    }

    #[test]
    fn what_was_not_written_is_not_held() {
        let store = Arc::new(Fake::default());
        let mut holder = candidate(&store, LONG);
        store.state().failing.push_back(true);
        acquire(&mut holder).unwrap_err();
        store.next([Swap::Fails]);
        acquire(&mut holder).unwrap_err();
        assert_eq!((holder.token(), store.state().kept.clone()), (None, None));
        assert!(acquire(&mut holder).unwrap());
        // A renewal that fails does not end the lease.
        store.next([Swap::Fails]);
        acquire(&mut holder).unwrap_err();
        assert_eq!(holder.token(), Some(1));
    }

    #[test]
    fn an_answer_that_takes_too_long_is_none() {
        let store = Arc::new(Fake::default());
        let mut holder = candidate(&store, SHORT);
        store.next([Swap::Dawdles]);
        assert!(!acquire(&mut holder).unwrap());
        assert!(acquire(&mut holder).unwrap());
        assert_eq!(holder.token(), Some(1));
    }

    #[test]
    fn what_arrives_late_counts_from_when_it_was_sent() {
        let store = Arc::new(Fake::default());
        let mut holder = candidate(&store, LONG);
        // The first round takes the lease, the second renews it.
        for revision in [1, 3] {
            store.next([Swap::Lags, Swap::IsOvertaken]);
            acquire(&mut holder).unwrap_err();
            // Other candidates may see the record from now on; they cannot see that it is sent again.
            let sent = Instant::now();
            spin(SHORT);
            assert!(acquire(&mut holder).unwrap());
            assert!(Instant::now() + holder.remaining() <= sent + LONG);
            assert_eq!((holder.token(), store.kept().revision), (Some(1), revision));
            assert!(acquire(&mut holder).unwrap());
            assert!(Instant::now() + holder.remaining() > sent + LONG, "this is another record");
        }
        // A record that is written only when it is sent again counts from then: nobody saw it before.
        store.next([Swap::Lags]);
        acquire(&mut holder).unwrap_err();
        let sent = Instant::now();
        spin(SHORT);
        assert!(acquire(&mut holder).unwrap());
        assert!(Instant::now() + holder.remaining() > sent + LONG);
    }

    #[test]
    fn a_call_that_was_cancelled_leaves_no_doubt() {
        let store = Arc::new(Fake::default());
        let mut holder = candidate(&store, LONG);
        for _ in 0..3 {
            store.next([Swap::Hangs]);
            assert!(holder.acquire().now_or_never().is_none());
            assert!(acquire(&mut holder).unwrap());
            assert_eq!(holder.token(), Some(1));
        }
        store.next([Swap::Hangs]);
        assert!(holder.release().now_or_never().is_none());
        assert_eq!((holder.token(), store.kept().ttl), (None, Duration::ZERO));
        release(&mut holder).unwrap();
        let revision = store.kept().revision;
        assert!(acquire(&mut holder).unwrap());
        assert_eq!(holder.token(), Some(revision + 1), "a lease that was given up is another");
    }

    #[test]
    fn what_may_be_held_is_given_up() {
        for swaps in [&[Swap::LosesAnswer][..], &[Swap::Denies], &[Swap::Lags]] {
            let store = Arc::new(Fake::default());
            let mut holder = candidate(&store, LONG);
            assert!(acquire(&mut holder).unwrap());
            store.next(swaps.iter().copied());
            store.state().failing.push_back(true);
            acquire(&mut holder).unwrap_err();
            store.arrive();
            release(&mut holder).unwrap();
            assert_eq!(store.kept(), LeaseRecord::new(3, 1, holder.holder, Duration::ZERO));
        }
        // The lagging write arrives between the load and the write.
        let store = Arc::new(Fake::default());
        let mut holder = candidate(&store, LONG);
        assert!(acquire(&mut holder).unwrap());
        store.next([Swap::Lags]);
        acquire(&mut holder).unwrap_err();
        store.arrive();
        release(&mut holder).unwrap();
        assert_eq!(store.kept().ttl, Duration::ZERO);
        // The write that gives the lease up fails itself.
        assert!(acquire(&mut holder).unwrap());
        store.next([Swap::Fails]);
        release(&mut holder).unwrap_err();
        assert_eq!(store.kept().ttl, LONG);
        release(&mut holder).unwrap();
        assert_eq!(store.kept().ttl, Duration::ZERO);
    }

    #[test]
    fn times_are_those_that_a_store_keeps() {
        let holder = Uuid::now_v7();
        let all = [
            (Duration::from_micros(1_999), 1),
            (Duration::from_millis(u64::from(u32::MAX)), i64::from(u32::MAX)),
            (Duration::MAX, i64::MAX),
        ];
        for (ttl, millis) in all {
            let record = LeaseRecord::new(7, 5, holder, ttl);
            assert_eq!(record.to_stored(), [7, 5, millis]);
            assert_eq!(LeaseRecord::from_stored(record.to_stored(), holder), record);

            let store = Arc::new(Fake::default());
            let mut candidate = candidate(&store, ttl);
            store.next([Swap::LosesAnswer]);
            let held = candidate.acquire().now_or_never().unwrap();
            assert!(held.is_ok(), "what was kept is not what was sent: {held:?}");
            assert!(candidate.remaining() <= Duration::from_millis(millis.unsigned_abs()));
        }
    }
}
