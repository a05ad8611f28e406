//! Names with characters of several bytes, beside those that differ from them in one byte.

use std::collections::BTreeSet;

use annals_core::{
    Category, EventStoreExt, EventType, ExpectedVersion, Filter, ReadAll, RecordedEvent, Source,
    StreamId, StreamPrefix, Subscribe,
};

use futures::{StreamExt, TryStreamExt, stream};

use crate::{
    case::{CaseResult, Context, cases},
    tools::{assert_events, catch_up, event, everything, id, read_all, take, typed},
};

cases! { "prefix":
    a_prefix_ends_between_bytes_that_characters_share [12] GlobalOrder;
    a_prefix_lies_beside_its_neighbours [12] GlobalOrder;
    the_greatest_characters_end_a_prefix [12] GlobalOrder;
    case_and_combining_characters_are_not_folded [12] GlobalOrder;
    signs_of_patterns_stand_for_themselves [12] GlobalOrder;
    a_prefix_may_be_the_whole_id_or_more [12] GlobalOrder;
    categories_are_compared_by_bytes [12] GlobalOrder;
    event_types_are_compared_by_bytes [12] GlobalOrder;
    live_events_are_compared_by_bytes [12, 15] GlobalOrder;
}

/// Writes an event to each of these streams.
async fn write(cx: &Context, streams: &[String]) -> annals_core::Result<Vec<RecordedEvent>> {
    let store = cx.open().await;
    // A stream id may have no control character, and `$` begins those of the backend.
    let streams = streams.iter().filter_map(|stream| StreamId::new(stream).ok());
    let streams: BTreeSet<_> = streams.filter(|stream| !stream.is_system()).collect();
    let writing = (0..).zip(streams).map(|(n, stream)| {
        let store = store.clone();
        async move { store.append_to(stream, ExpectedVersion::NoStream, [event(n)]).await }
    });
    stream::iter(writing).buffer_unordered(8).try_collect::<Vec<_>>().await?;
    everything(&store).await
}

/// Checks what a filter lets through, by another test than that of the filter itself.
async fn assert_let_through(
    cx: &Context,
    all: &[RecordedEvent],
    filter: Filter,
    wanted: impl Fn(&RecordedEvent) -> bool,
) -> annals_core::Result<()> {
    let store = cx.open().await;
    let due: Vec<_> = all.iter().filter(|event| wanted(event)).cloned().collect();
    let options = ReadAll::default().with_filter(filter.clone());
    let got = read_all(&store, options.clone()).await?;
    assert_events(format!("a read with {filter:?}"), &got, &due);
    let mut got = read_all(&store, options.backwards()).await?;
    got.reverse();
    assert_events(format!("a backward read with {filter:?}"), &got, &due);
    let mut live = store.subscribe(Subscribe::to(filter.clone())).await?;
    let got = catch_up(cx, &mut live).await.0;
    assert_events(format!("a subscription with {filter:?}"), &got, &due);
    Ok(())
}

fn by_prefix(text: &str) -> Option<Filter> {
    Some(Filter::default().with_prefix(StreamPrefix::new(text).ok()?))
}

/// Writes to these streams, and reads by each of these prefixes.
async fn check(cx: Context, streams: Vec<String>, prefixes: &[&str]) -> CaseResult {
    let all = write(&cx, &streams).await?;
    for text in prefixes {
        let Some(filter) = by_prefix(text) else { continue };
        let begins =
            |event: &RecordedEvent| event.stream.as_str().as_bytes().starts_with(text.as_bytes());
        assert_let_through(&cx, &all, filter, begins).await?;
    }
    Ok(())
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// These characters have the same first bytes, in twos and threes.
const SHARED: &[&str] = &[
    "é",
    "è",
    "ê",
    "À",
    "ã",
    "日",
    "旦",
    "旧",
    "明",
    "时",
    "🦀",
    "🦁",
    "🥀",
    "\u{1f97f}",
    "ü",
    "Ǽ",
    "\u{2028}",
    "\u{2029}",
    "\u{2027}",
];

async fn a_prefix_ends_between_bytes_that_characters_share(cx: Context) -> CaseResult {
    let mut streams = Vec::new();
    for character in SHARED {
        streams.extend([
            character.to_string(),
            format!("{character}a-1"),
            format!("a{character}-1"),
        ]);
        streams.push(format!("ab{character}{character}"));
    }
    let mut prefixes = Vec::new();
    for character in SHARED {
        prefixes.extend([character.to_string(), format!("{character}a"), format!("a{character}")]);
        prefixes.push(format!("ab{character}"));
    }
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    check(cx, streams, &prefixes).await
}

/// Each prefix, with the characters before and after its last one.
async fn a_prefix_lies_beside_its_neighbours(cx: Context) -> CaseResult {
    let ends = [
        'a',
        'z',
        '/',
        '9',
        '~',
        '\u{a0}',
        'ÿ',
        '\u{7ff}',
        '\u{800}',
        '\u{d7ff}',
        '\u{e000}',
        '\u{ffff}',
        '\u{10000}',
        '日',
        '🦀',
    ];
    let (mut streams, mut prefixes) = (Vec::new(), Vec::new());
    for end in ends {
        let code = end as u32;
        let steps = [-2, -1, 0, 1, 2, -0x40, 0x40];
        let near = steps.map(|step| code.wrapping_add_signed(step));
        for near in near.into_iter().filter_map(char::from_u32) {
            streams.extend([format!("x{near}"), format!("x{near}a"), format!("x{near}\u{10ffff}")]);
        }
        prefixes.push(format!("x{end}"));
    }
    prefixes.push("x".to_owned());
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    check(cx, streams, &prefixes).await
}

async fn the_greatest_characters_end_a_prefix(cx: Context) -> CaseResult {
    let top = "\u{10ffff}";
    let streams = owned(&[
        "a",
        "b",
        "a-1",
        "a~",
        "\u{10fffe}",
        "\u{10ffff}",
        "\u{10ffff}-1",
        "a\u{10ffff}",
        "a\u{10ffff}\u{10ffff}",
        "a\u{10fffe}z",
        "a\u{10ffff}-1",
        "b\u{10ffff}",
        "a\u{ffff}",
        "a\u{10000}",
        "a\u{d7ff}",
        "a\u{e000}",
        "\u{10ffff}\u{10ffff}",
        "\u{10ffff}a",
    ]);
    let tops = top.repeat(3);
    let prefixes = [
        top,
        "a\u{10ffff}",
        "a\u{10ffff}\u{10ffff}",
        "a\u{d7ff}",
        "a\u{ffff}",
        "a",
        "b",
        &tops,
        "\u{10fffe}",
        "\u{10ffff}-",
    ];
    check(cx, streams, &prefixes).await
}

async fn case_and_combining_characters_are_not_folded(cx: Context) -> CaseResult {
    let streams = owned(&[
        "e\u{301}-1",
        "é-1",
        "e-1",
        "E\u{301}-1",
        "É-1",
        "E-1",
        "ß-1",
        "ss-1",
        "SS-1",
        "ẞ-1",
        "i-1",
        "I-1",
        "İ-1",
        "ı-1",
        "i\u{307}-1",
        "k-1",
        "K-1",
        "\u{212a}-1",
        "s-1",
        "ſ-1",
        "ﬁ-1",
        "fi-1",
        "å-1",
        "Å-1",
        "\u{212b}-1",
        "a\u{30a}-1",
        "σ-1",
        "ς-1",
        "Σ-1",
        "ａ-1",
        "a-1",
        "A-1",
        "\u{200b}a-1",
        "a\u{200b}-1",
        "\u{feff}a-1",
        "가-1",
        "\u{1100}\u{1161}-1",
    ]);
    let prefixes = [
        "e", "é", "e\u{301}", "E", "É", "ß", "ss", "SS", "S", "s", "ẞ", "i", "I", "İ", "ı",
        "i\u{307}", "k", "K", "\u{212a}", "ſ", "ﬁ", "f", "å", "Å", "\u{212b}", "a\u{30a}", "σ",
        "ς", "Σ", "ａ", "a", "A", "\u{200b}", "\u{feff}", "가", "\u{1100}",
    ];
    check(cx, streams, &prefixes).await
}

async fn signs_of_patterns_stand_for_themselves(cx: Context) -> CaseResult {
    let signs = [
        "%", "_", "\\", "*", "?", "[", "]", "^", ".", "+", "(", "|", "#", "'", "\"", "`", ";", "{",
        "~", "&", "!", "@", ":", "/", " ", "\\%", "\\_", "[a]", ".*", "%%", "__", "''", "--", "E'",
        "$1", "?1", "\\x41", "%41",
    ];
    let (mut streams, mut prefixes) = (owned(&["abc-1", "xbc-1", "a", "b-1"]), Vec::new());
    for sign in signs {
        streams.extend([format!("a{sign}c-1"), format!("a{sign}"), format!("{sign}a")]);
        prefixes.extend([format!("a{sign}"), format!("a{sign}c"), sign.to_owned()]);
    }
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    check(cx, streams, &prefixes).await
}

async fn a_prefix_may_be_the_whole_id_or_more(cx: Context) -> CaseResult {
    let (long, longer) = ("y".repeat(254), "y".repeat(255));
    let other = "y".repeat(254) + "z";
    let streams = owned(&[
        "order-1",
        "order-10",
        "order-1 ",
        "order",
        "order-",
        "order-1\u{301}",
        &long,
        &longer,
        &other,
        "o",
        " ",
        "  ",
        " order-1",
    ]);
    let prefixes = [
        "order-1",
        "order-10",
        "order-100",
        "order-1 ",
        "order-1  ",
        "order",
        "order-",
        &long,
        &longer,
        &other,
        "o",
        " ",
        "  ",
        "   ",
        " order",
    ];
    check(cx, streams, &prefixes).await
}

/// Names that some comparison other than one by bytes takes for another of them, or for a part of it.
const ALIKE: [&str; 22] = [
    "é",
    "è",
    "e\u{301}",
    "É",
    "日",
    "旦",
    "🦀",
    "🦁",
    "ß",
    "ss",
    "a",
    "A",
    "a ",
    " a",
    "a%",
    "a_",
    "ab",
    "a\u{10ffff}",
    "\u{10ffff}",
    "a*",
    "K",
    "\u{212a}",
];

async fn categories_are_compared_by_bytes(cx: Context) -> CaseResult {
    let names = [&ALIKE[..], &["ı", "i", "$a"]].concat();
    let mut streams = Vec::new();
    for name in &names {
        streams.extend([
            format!("{name}-1"),
            format!("{name}-"),
            format!("{name}-1-2"),
            name.to_string(),
        ]);
        streams.extend([format!("{name}x-1"), format!("-{name}-1")]);
    }
    let all = write(&cx, &streams).await?;
    for name in names {
        let filter = Filter::default().with_category(Category::new(name)?);
        let begin = format!("{name}-");
        let belongs =
            |event: &RecordedEvent| event.stream.as_str().as_bytes().starts_with(begin.as_bytes());
        assert_let_through(&cx, &all, filter, belongs).await?;
    }
    Ok(())
}

async fn event_types_are_compared_by_bytes(cx: Context) -> CaseResult {
    let names = [&ALIKE[..], &["SS", "a,b", "b", "a'", "a\"", "{a}", "a|b", "a;b"]].concat();
    let store = cx.open().await;
    for (n, name) in (0..).zip(names.iter().copied()) {
        let event = typed(name, n);
        store.append_to("order-1", ExpectedVersion::Any, [event]).await?;
    }
    let all = everything(&store).await?;
    for (n, name) in names.iter().copied().enumerate() {
        let other = names[(n + 7) % names.len()];
        let types = |names: &[&str]| -> Vec<_> {
            names.iter().map(|name| EventType::new(name).unwrap()).collect()
        };
        let filter = Filter::default().with_event_types(types(&[name]));
        let is_one = |event: &RecordedEvent| event.event_type.as_str() == name;
        assert_let_through(&cx, &all, filter, is_one).await?;
        let filter = Filter::default().with_event_types(types(&[name, other, name]));
        let is_one = |event: &RecordedEvent| [name, other].contains(&event.event_type.as_str());
        assert_let_through(&cx, &all, filter, is_one).await?;
    }
    Ok(())
}

async fn live_events_are_compared_by_bytes(cx: Context) -> CaseResult {
    let store = cx.open().await;
    let mut lives = Vec::new();
    for text in ["é", "日", "🦀", "e", "\u{10ffff}", "a%"] {
        let source = Source::from(by_prefix(text).unwrap());
        let mut live = store.subscribe(Subscribe::to(source.clone())).await?;
        catch_up(&cx, &mut live).await;
        lives.push((source, live));
    }
    let names = SHARED.iter().copied();
    let names = names.chain(["e\u{301}", "e", "E", "\u{10fffe}", "\u{10ffff}", "a%", "ab", "a_"]);
    let streams: Vec<_> = names.map(|name| format!("{name}-1")).collect();
    let all = write(&cx, &streams).await?;
    for (source, mut live) in lives {
        let due: Vec<_> = all.iter().filter(|e| source.matches(e)).cloned().collect();
        let got = take(&cx, &mut live, due.len()).await;
        assert_events(format!("a live subscription to {source:?}"), &got, &due);
    }
    assert!(store.load_stream(&id("é-1")).await?.len() == 1, "é-1 holds another number of events");
    Ok(())
}
