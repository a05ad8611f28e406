//! `annals verify`: checks one store against the contract, or compares two stores.

mod alone;
mod census;
mod findings;
mod ids;
mod pair;
mod stream;
#[cfg(all(test, feature = "memory"))]
mod tests;

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar};
use serde_json::json;

use self::{
    census::{Census, hex},
    findings::{FindingLists, Findings},
    pair::Strictness,
};
use crate::{
    carry::{Carrier, Left, Limits, Treatment, Unnamable},
    failure::{Code, Failure},
    interrupt::Interrupt,
    of_server::OfServer,
    output::{self, BAD, DIM, GOOD, styled},
    select::{Select, SelectStreams, SelectTimes},
    source::Source,
};

/// Verifies that one store keeps the contract, or that two stores hold the same events.
///
/// With one URL, verify checks that versions have no gaps, that positions rise, that reads of the
/// streams and a read of all return the same events, that the list of streams has all of them, and that
/// JSON payloads are JSON. It reports ids that occur twice. With two URLs, verify checks that both
/// stores have the same events in the same streams, byte for byte and in the same order, and shows the
/// first difference. A URL names a store, or an export: jsonl:FILE, cloudevents:FILE.
///
/// Where a copy from the first to the second was told what to do with events that the second cannot take,
/// tell verify the same: --links, --unnamable, --oversized. It lists what stays behind, and ends with status
/// 5 if all else is alike.
///
/// --since and --until select events by the clocks that recorded them, which may disagree. Then gaps
/// between versions are no fault, and streams are not read one by one.
///
/// Verify needs memory for each stream, but not for each event.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// A store or a file.
    #[arg(env = "ANNALS_FROM", hide_env_values = true)]
    one: String,
    /// A second store or file, to compare with the first.
    #[arg(env = "ANNALS_TO", hide_env_values = true)]
    other: Option<String>,
    #[command(flatten)]
    streams: SelectStreams,
    #[command(flatten)]
    times: SelectTimes,
    #[command(flatten)]
    treatment: Treatment,
    /// Do not compare the order over all streams, which a copy with several lanes does not keep.
    #[arg(long)]
    any_order: bool,
    /// Print the digest of each stream.
    #[arg(long)]
    digests: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let one = Source::open(&self.one).await?;
        let other = match self.other.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => Some(Source::open(url).await?),
            None => None,
        };
        if let Some(other) = &other
            && !self.times.is_everything()
            && ![&one, other].iter().all(|source| keeps_times(source))
        {
            return Err(Failure::usage(
                "--since and --until select by the times at which events were recorded, and one of \
                 the two stores does not take over the times of a copy; compare all events",
            ));
        }
        let select = Select::of(self.streams.clone(), self.times.clone());
        let (interrupt, findings, began) =
            (Interrupt::listen(), Findings::default(), Instant::now());
        let bars = ProgressBars::default();
        let take = async |source: &Source, carrier: Option<&mut Carrier>, findings: Findings| {
            let bar = bars.reading(source);
            Census::take(source, &select, carrier, &interrupt, &findings, bar).await
        };
        let (mut carrier, mut as_they_are) = self.carriers(&one, other.as_ref());
        let (first, second) = match &other {
            Some(other) => {
                let first = take(&one, Some(&mut carrier), findings.at(one.shown()));
                let second = take(other, Some(&mut as_they_are), findings.at(other.shown()));
                let (first, second) = futures::try_join!(first, second)?;
                (first, Some(second))
            }
            None => (take(&one, Some(&mut carrier), findings.clone()).await?, None),
        };
        if !carrier.undecided.is_empty() {
            findings.broken(|| carrier.undecided.undecided("the second store"));
        }
        let mut read = first.events;
        match (&other, &second) {
            (Some(other), Some(second)) => {
                read += second.events;
                self.compare((&one, &first), (other, second), &findings).await?;
            }
            _ => {
                if self.times.is_everything() {
                    let reading = bars.streams(first.events);
                    alone::compare(&one, &first, &select, &interrupt, &findings, |events| {
                        read += events;
                        reading.inc(events);
                    })
                    .await?;
                }
            }
        }
        bars.clear();
        let sides: Vec<_> = [Some((&one, &first)), other.as_ref().zip(second.as_ref())]
            .into_iter()
            .flatten()
            .collect();
        let left = match &other {
            Some(_) => {
                let of_server = OfServer::look(&one, &select, &interrupt).await?;
                if let Some(note) = of_server.note() {
                    findings.note(|| note);
                }
                let mut left = carrier.left;
                left.append(of_server.left);
                left
            }
            None => {
                // Reads of such streams fail, so there is nothing to compare.
                if !carrier.left.is_empty() {
                    findings.note(|| format!("not verified: {}", carrier.left.summary()));
                }
                Left::default()
            }
        };
        self.report(&sides, &findings.lists(), &left, read, began.elapsed())
    }

    /// What gives the events of the first store the form that they have in the second one, and those of
    /// the second one the form in which they can be compared.
    fn carriers(&self, one: &Source, other: Option<&Source>) -> (Carrier, Carrier) {
        let everything = Limits::of(None);
        let mut treatment = self.treatment;
        let Some(other) = other else {
            let nothing = Treatment { unnamable: Some(Unnamable::Skip), ..Treatment::default() };
            let carrier = || Carrier::new(one, everything, nothing);
            return (carrier(), carrier());
        };
        let rename = Treatment { unnamable: Some(Unnamable::Rename), ..Treatment::default() };
        let mut limits = Limits::of(other.store().map(|store| store.capabilities()));
        if other.exporter().is_some() {
            // Both may have such events.
            limits.system_names |= treatment.links.is_none() && treatment.unnamable.is_none();
            treatment.unnamable = treatment.unnamable.or(rename.unnamable);
        }
        (Carrier::new(one, limits, treatment), Carrier::new(other, everything, rename))
    }

    async fn compare(
        &self,
        one: (&Source, &Census),
        other: (&Source, &Census),
        findings: &Findings,
    ) -> Result<(), Failure> {
        let sources = [one.0, other.0];
        let orders =
            |source: &&Source| source.store().is_none_or(|store| store.capabilities().global_order);
        let strictness = Strictness {
            order: !self.any_order && sources.iter().all(orders),
            times: sources.iter().all(|source| keeps_times(source)),
        };
        pair::compare(one, other, strictness, &self.times, findings).await?;
        let lists = |store: &annals::Capabilities| store.list_streams;
        match (one.0.store(), other.0.store()) {
            (Some(a), Some(b)) if lists(a.capabilities()) && lists(b.capabilities()) => {
                pair::compare_states(a, b, &self.streams, findings).await
            }
            _ => {
                findings.note(|| {
                    "streams without events were not compared: one of the two cannot list them"
                        .to_owned()
                });
                Ok(())
            }
        }
    }

    fn report(
        &self,
        sides: &[(&Source, &Census)],
        found: &FindingLists,
        left: &Left,
        read: u64,
        took: Duration,
    ) -> Result<ExitCode, Failure> {
        output::written(self.write(&mut output::stdout(), sides, found, left, (read, took)))?;
        Ok(match (found.broken_count, left.is_empty()) {
            (0, true) => ExitCode::SUCCESS,
            (0, false) => Code::LeftBehind.into(),
            _ => Code::Found.into(),
        })
    }

    fn write(
        &self,
        out: &mut impl Write,
        sides: &[(&Source, &Census)],
        found: &FindingLists,
        left: &Left,
        (read, took): (u64, Duration),
    ) -> std::io::Result<()> {
        if self.json {
            let stores = sides.iter().map(|(source, census)| {
                let digests = self.digests.then(|| {
                    let streams = census.sorted();
                    streams
                        .iter()
                        .map(|(id, tally)| (id.to_string(), hex(tally.digest).into()))
                        .collect::<serde_json::Map<_, _>>()
                });
                json!({
                    "store": source.shown(), "events": census.events, "bytes": census.bytes,
                    "streams": census.streams.len(), "digest": hex(census.digest()),
                    "digests": digests,
                })
            });
            let report = json!({
                "ok": found.broken_count == 0, "stores": stores.collect::<Vec<_>>(),
                "broken": found.broken, "broken_count": found.broken_count,
                "notes": found.notes, "notes_count": found.notes_count,
                "left_behind": left.lines().collect::<Vec<_>>(), "left_behind_count": left.count(),
                "events_read": read, "seconds": took.as_secs_f64(),
            });
            writeln!(out, "{report}")?;
        } else {
            for (source, census) in sides {
                if self.digests {
                    for (id, tally) in census.sorted() {
                        let versions = format!("{}-{}", tally.first, tally.last);
                        writeln!(out, "{}  {versions:>12}  {id}", hex(tally.digest))?;
                    }
                }
                writeln!(
                    out,
                    "{}  {}: {} events in {} streams, {}",
                    hex(census.digest()),
                    source.shown(),
                    HumanCount(census.events),
                    HumanCount(census.streams.len() as u64),
                    HumanBytes(census.bytes)
                )?;
            }
            show(out, BAD, &found.broken, found.broken_count)?;
            show(out, DIM, &found.notes, found.notes_count)?;
            for line in left.lines() {
                writeln!(out, "stays behind: {line}")?;
            }
            let verdict = match (found.broken_count, sides) {
                (0, _) if !left.is_empty() => {
                    styled(GOOD, format!("both hold the same, but for {}", left.summary()))
                }
                (0, [_]) => styled(GOOD, "the contract is kept"),
                (0, _) => styled(GOOD, "both hold the same"),
                (count, [_]) => styled(BAD, format!("{count} breaches of the contract")),
                (count, _) => styled(BAD, format!("{count} differences")),
            };
            writeln!(out, "{verdict}  ({} events read in {took:.1?})", HumanCount(read))?;
        }
        out.flush()
    }
}

/// Whether a copy to this store or file keeps the times at which events were recorded.
fn keeps_times(source: &Source) -> bool {
    source.store().is_none_or(|store| store.capabilities().exact_import)
}

fn show(
    out: &mut impl Write,
    style: anstyle::Style,
    shown: &[String],
    count: u64,
) -> std::io::Result<()> {
    for text in shown {
        writeln!(out, "{}", styled(style, text))?;
    }
    match count - shown.len() as u64 {
        0 => Ok(()),
        more => writeln!(out, "{}", styled(style, format!("and {} more", HumanCount(more)))),
    }
}

/// Progress bars, if standard error is a terminal.
#[derive(Default)]
struct ProgressBars(indicatif::MultiProgress);

impl ProgressBars {
    fn add(&self, bar: ProgressBar, template: &str) -> ProgressBar {
        if !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        self.0.add(bar.with_style(output::bar(template)))
    }

    fn reading(&self, source: &Source) -> impl FnMut(&Census) + use<> {
        let bar =
            self.add(ProgressBar::new_spinner(), "{spinner} {human_pos} events, {per_sec}  {msg}");
        bar.set_message(source.shown());
        move |census| bar.set_position(census.events)
    }

    fn streams(&self, events: u64) -> ProgressBar {
        self.add(
            ProgressBar::new(events),
            "{bar:30.cyan/dim} {percent:>3}%  each stream  {per_sec}  {eta} left",
        )
    }

    fn clear(&self) {
        // If the terminal is gone, there is nothing to clear.
        let _ = self.0.clear();
    }
}
