//! Every version and every position of streams that were truncated, deleted and revived is a place to
//! go on from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use annals_core::{
    Category, ExpectedVersion, Filter, Position, ReadAll, ReadStream, RecordedEvent, Result,
    Source, Start, Store, StreamId, Subscribe, Version,
};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_events, assert_versions, catch_up, exact, extend, id, read, read_all},
};

cases! { "places":
    every_place_of_a_truncated_stream [12, 15, 21] Truncate GlobalOrder;
    every_place_of_a_stream_truncated_twice [12, 15, 21] Truncate GlobalOrder;
    every_place_of_a_stream_truncated_whole [12, 15, 21] Truncate GlobalOrder;
    every_place_of_a_revived_stream [12, 15, 21] Delete GlobalOrder;
    every_place_of_a_stream_revived_and_truncated [12, 15, 21] Truncate Delete GlobalOrder;
    every_place_of_a_stream_truncated_and_revived [12, 15, 21] Truncate Delete GlobalOrder;
    every_place_of_streams_removed_in_turns [12, 15, 21] Truncate Delete Tombstone GlobalOrder;
    every_place_after_a_reopen [12, 15, 21, 23] Truncate Delete GlobalOrder Durable;
    every_version_of_removed_streams [11, 15, 21] Truncate Delete;
    live_subscribers_of_removed_streams_go_on [15, 21] Truncate Delete;
}

/// What was done to the streams of a store, and what is due of it.
struct Story {
    cx: Context,
    store: Arc<dyn Store>,
    /// Every event that was ever read, in the order of the appends.
    all: Vec<RecordedEvent>,
    removed: BTreeSet<(StreamId, u64)>,
    versions: BTreeMap<StreamId, u64>,
    told: String,
}

impl Story {
    async fn begin(cx: &Context) -> Result<Self> {
        let mut story = Self {
            cx: cx.clone(),
            store: cx.open().await,
            all: Vec::new(),
            removed: BTreeSet::new(),
            versions: BTreeMap::new(),
            told: "after".to_owned(),
        };
        // Streams of the same and of another category, whose positions lie between the others.
        story.append("order-2", 2).await?;
        story.append("stock-1", 1).await?;
        Ok(story)
    }

    fn tell(&mut self, what: &str) {
        self.told = format!("{} {what},", self.told);
    }

    async fn append(&mut self, stream: &str, count: u64) -> Result<()> {
        let stream = id(stream);
        let base = self.versions.get(&stream).copied().unwrap_or_default();
        extend(&self.store, &stream, base, count).await?;
        self.versions.insert(stream.clone(), base + count);
        let options = ReadStream::default().with_from(base + 1);
        let new = read(&self.store, &stream, options).await?;
        assert_versions(format!("{} an append", self.told), &new, base + 1..=base + count);
        self.all.extend(new);
        self.tell(&format!("{count} events of {stream}"));
        Ok(())
    }

    async fn truncate(&mut self, stream: &str, before: u64) -> Result<()> {
        let stream = id(stream);
        self.store.truncate(&stream, before.into()).await?;
        self.tell(&format!("a truncation of {stream} before {before}"));
        let last = self.versions.get(&stream).copied().unwrap_or_default();
        self.removed.extend((1..=last.min(before.saturating_sub(1))).map(|v| (stream.clone(), v)));
        Ok(())
    }

    async fn remove(&mut self, stream: &str, closes: bool) -> Result<()> {
        let stream = id(stream);
        match closes {
            true => self.store.tombstone(&stream, ExpectedVersion::Any).await?,
            false => self.store.delete(&stream, ExpectedVersion::Any).await?,
        }
        self.tell(&format!("the removal of {stream}"));
        let last = self.versions.get(&stream).copied().unwrap_or_default();
        self.removed.extend((1..=last).map(|version| (stream.clone(), version)));
        Ok(())
    }

    async fn delete(&mut self, stream: &str) -> Result<()> {
        self.remove(stream, false).await
    }

    fn is_left(&self, event: &RecordedEvent) -> bool {
        !self.removed.contains(&(event.stream.clone(), event.version.get()))
    }

    /// The events of a source that are left, after a place.
    fn due(
        &self,
        source: &Source,
        is_after: impl Fn(&RecordedEvent) -> bool,
    ) -> Vec<RecordedEvent> {
        let wanted = |e: &&RecordedEvent| self.is_left(e) && source.matches(e) && is_after(e);
        self.all.iter().filter(wanted).cloned().collect()
    }

    /// What a store gives, without removed events that it may give until a clean-up.
    fn left(&self, got: Vec<RecordedEvent>) -> Vec<RecordedEvent> {
        got.into_iter().filter(|event| self.is_left(event)).collect()
    }

    fn sources(&self) -> Vec<Source> {
        let category = Source::category(Category::new("order").unwrap());
        let typed = Filter::default().with_event_types(["Numbered".try_into().unwrap()]);
        let streams = self.versions.keys().cloned().map(Source::from);
        [Source::default(), category, typed.into()].into_iter().chain(streams).collect()
    }

    /// Goes on from every position and every version.
    async fn check(&self) -> Result<()> {
        let positions = self.all.iter().map(|event| event.position);
        for place in std::iter::once(Position::START).chain(positions) {
            self.check_reads(place).await?;
            for source in self.sources() {
                let due = self.due(&source, |event| event.position > place);
                let to = Subscribe::to(source.clone()).after(place);
                let mut live = self.store.subscribe(to).await?;
                let got = self.left(catch_up(&self.cx, &mut live).await.0);
                let what = format!("{} a subscription to {source:?} after {place}", self.told);
                assert_events(what, &got, &due);
            }
        }
        self.check_versions().await
    }

    async fn check_reads(&self, place: Position) -> Result<()> {
        let category = Filter::default().with_category(Category::new("order").unwrap());
        for filter in [Filter::default(), category] {
            let source = Source::from(filter.clone());
            let options = ReadAll::default().with_filter(filter.clone());
            let after = self.due(&source, |event| event.position > place);
            let got = self.left(read_all(&self.store, options.clone().after(place)).await?);
            let what = format!("{} a read after {place} with {filter:?}", self.told);
            assert_events(what, &got, &after);
            let mut before = self.due(&source, |event| event.position < place);
            before.reverse();
            let got = self.left(read_all(&self.store, options.before(place)).await?);
            let what = format!("{} a read before {place} with {filter:?}", self.told);
            assert_events(what, &got, &before);
        }
        Ok(())
    }

    async fn check_versions(&self) -> Result<()> {
        for (stream, last) in &self.versions {
            let source = Source::from(stream.clone());
            for version in 0..=*last {
                let due = self.due(&source, |event| event.version.get() > version);
                let start = Start::AfterVersion(version.into());
                let to = Subscribe::to(stream.clone()).with_start(start);
                let got = catch_up(&self.cx, &mut self.store.subscribe(to).await?).await.0;
                let what = format!("{} a subscription to {stream} after {version}", self.told);
                assert_events(what, &got, &due);
                let options = ReadStream::default().with_from(version + 1).with_limit(3);
                let got = read(&self.store, stream, options.clone()).await?;
                let due: Vec<_> = due.into_iter().take(3).collect();
                assert_events(format!("{} {stream} by {options:?}", self.told), &got, &due);
                let options = options.backwards();
                let got = read(&self.store, stream, options.clone()).await?;
                let due = self.due(&source, |event| event.version.get() <= version + 1);
                let due: Vec<_> = due.into_iter().rev().take(3).collect();
                assert_events(format!("{} {stream} by {options:?}", self.told), &got, &due);
            }
        }
        Ok(())
    }
}

async fn every_place_of_a_truncated_stream(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 3).await?;
    story.append("order-2", 2).await?;
    story.append("order-1", 4).await?;
    story.truncate("order-1", 4).await?;
    story.check().await?;
    story.append("order-1", 2).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_of_a_stream_truncated_twice(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 6).await?;
    story.truncate("order-1", 3).await?;
    story.append("stock-1", 2).await?;
    story.append("order-1", 3).await?;
    story.truncate("order-1", 6).await?;
    story.truncate("order-1", 2).await?;
    story.append("order-1", 1).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_of_a_stream_truncated_whole(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 5).await?;
    story.truncate("order-1", 9).await?;
    story.check().await?;
    story.append("order-1", 3).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_of_a_revived_stream(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 4).await?;
    story.delete("order-1").await?;
    story.check().await?;
    story.append("order-1", 3).await?;
    story.append("order-2", 1).await?;
    story.delete("order-1").await?;
    story.append("order-1", 2).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_of_a_stream_revived_and_truncated(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 3).await?;
    story.delete("order-1").await?;
    story.append("order-1", 4).await?;
    story.truncate("order-1", 6).await?;
    story.append("stock-1", 1).await?;
    story.append("order-1", 1).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_of_a_stream_truncated_and_revived(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 5).await?;
    story.truncate("order-1", 4).await?;
    story.delete("order-1").await?;
    story.append("order-2", 1).await?;
    story.append("order-1", 3).await?;
    story.truncate("order-1", 2).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_of_streams_removed_in_turns(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    for stream in ["order-1", "stock-2", "order-3", "order-1", "stock-2", "order-3"] {
        story.append(stream, 2).await?;
    }
    story.remove("order-3", true).await?;
    story.truncate("stock-2", 3).await?;
    story.delete("order-1").await?;
    story.append("stock-2", 1).await?;
    story.append("order-1", 1).await?;
    story.check().await?;
    Ok(())
}

async fn every_place_after_a_reopen(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    story.append("order-1", 4).await?;
    story.append("stock-1", 3).await?;
    story.truncate("order-1", 3).await?;
    story.delete("stock-1").await?;
    // Drop the handle before the next one is opened.
    let Story { all, removed, versions, told, .. } = story;
    let store = cx.open().await;
    let told = format!("{told} a reopen,");
    let mut story = Story { cx: cx.clone(), store, all, removed, versions, told };
    story.check().await?;
    story.append("stock-1", 2).await?;
    story.append("order-1", 2).await?;
    story.check().await?;
    Ok(())
}

/// On a store without an order over all streams, too.
async fn every_version_of_removed_streams(cx: Context) -> CaseResult {
    let mut story = Story::begin(&cx).await?;
    for stream in ["cut-1", "gone-1", "both-1", "whole-1", "twice-1"] {
        story.append(stream, 5).await?;
    }
    story.truncate("cut-1", 3).await?;
    story.delete("gone-1").await?;
    story.delete("both-1").await?;
    story.truncate("whole-1", 6).await?;
    story.truncate("twice-1", 2).await?;
    story.truncate("twice-1", 5).await?;
    for stream in ["cut-1", "gone-1", "both-1", "whole-1"] {
        story.append(stream, 3).await?;
    }
    story.truncate("both-1", 8).await?;
    story.check_versions().await?;
    Ok(())
}

async fn live_subscribers_of_removed_streams_go_on(cx: Context) -> CaseResult {
    let (store, other, stream) = (cx.open().await, cx.open().await, id("order-1"));
    extend(&store, &stream, 0, 6).await?;
    let mut lives = Vec::new();
    for version in [0, 2, 4, 6] {
        let start = Start::AfterVersion(Version::new(version));
        let to = Subscribe::to(stream.clone()).with_start(start);
        let mut live = store.subscribe(to).await?;
        catch_up(&cx, &mut live).await;
        lives.push((version, live));
    }
    let mut base = 6;
    for round in 0..3 {
        match round {
            0 => other.truncate(&stream, 4.into()).await?,
            1 => other.truncate(&stream, 100.into()).await?,
            _ => other.delete(&stream, exact(base)).await?,
        }
        extend(&other, &stream, base, 2).await?;
        base += 2;
        for (version, live) in &mut lives {
            let got = crate::tools::take(&cx, live, 2).await;
            let what = format!("the subscription after {version}, in round {round} of removals");
            assert_versions(what, &got, base - 1..=base);
        }
    }
    Ok(())
}
