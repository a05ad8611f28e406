//! `annals bench`: measures the throughput and the latency of appends.

mod figures;
mod load;
mod options;
mod plot;
mod report;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use indicatif::ProgressBar;

use crate::{
    bench::{figures::Figures, load::Load, report::Report},
    failure::{Code, Failure},
    interrupt::Interrupt,
    namespace::{Namespaces, unique},
    output,
};

#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct Bench {
    /// A store, which need not exist. If neither this nor ANNALS_FROM is set: that in ANNALS_URL.
    #[arg(env = "ANNALS_FROM", hide_env_values = true)]
    url: Option<String>,
    /// A second store. The two are measured in turn, a round of each.
    #[arg(long, value_name = "URL", env = "ANNALS_TO", hide_env_values = true)]
    vs: Option<String>,
    /// How many rounds each of the two stores has.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "vs",
          value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    load: options::Options,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// Draw the latency by percentile and the throughput over time, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

const AFTER: &str = "\
The load is a closed loop: each writer appends to a stream, waits for the answer, and appends again. \
Appends expect any version, so that none conflicts. Latency is the time from the call to its answer. \
While a store stalls, its writers send no further appends. So the percentiles say what these writers \
see, not what clients would see that send at a steady rate (\"coordinated omission\"). The data of \
events is random and cannot be compressed.

The ratio of two stores is that of the second to the first. Of rates (/s) more is better, of latencies \
(ms) less; the column `better` names the better of the two.

Events are written to a temporary namespace next to the store named, which is removed at the end. If a \
run is killed, the namespace stays; its name contains `annals_tmp_`.

Ctrl-C ends the measurement early: the figures so far are printed, with exit status 130.";

impl Bench {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let load = self.load.check()?;
        if let Some(path) = &self.svg {
            // Create the file before the benchmark runs, so that a path that cannot be written fails at
            // once.
            std::fs::File::create(path).map_err(|error| Failure::from(error).at(path.display()))?;
        }
        let is_set = |url: &String| !url.is_empty();
        let url = self.url.filter(is_set).or_else(|| std::env::var("ANNALS_URL").ok());
        let Some(url) = url.filter(is_set) else {
            return Err(Failure::usage(
                "name a store by its URL, or set ANNALS_FROM or ANNALS_URL",
            ));
        };
        let vs = self.vs.filter(is_set);
        let rounds = if vs.is_some() { self.rounds } else { 1 };
        let mut stores = Vec::new();
        for url in [Some(&url), vs.as_ref()].into_iter().flatten() {
            let namespaces = Namespaces::at(url)?;
            let figures = Figures::new(namespaces.url().to_string(), &load);
            stores.push((namespaces, figures));
        }
        let interrupt = Interrupt::listen();
        let progress = progress(&load, u32::from(rounds), stores.len());
        for _ in 0..rounds {
            for (namespaces, figures) in &mut stores {
                if !interrupt.is_set() {
                    progress.set_message(figures.store.clone());
                    round(namespaces, &load, figures, &interrupt, &progress).await?;
                }
            }
        }
        progress.finish_and_clear();
        for (namespaces, _) in &stores {
            if let Some(left) = namespaces.leftovers() {
                output::say(left);
            }
        }
        let is_interrupted = interrupt.is_set();
        let stores = stores.into_iter().map(|(_, figures)| figures).collect();
        let report = Report { load, stores, is_interrupted };
        let mut out = output::stdout();
        let written = if self.json { report.write_json(&mut out) } else { report.write(&mut out) };
        output::written(written)?;
        if let Some(path) = &self.svg {
            let drawn = plot::draw(&report.stores);
            let drawn =
                drawn.map_err(|e| Failure::new("the diagrams cannot be drawn").because(&*e))?;
            std::fs::write(path, drawn).map_err(|e| Failure::from(e).at(path.display()))?;
        }
        Ok(if is_interrupted { Code::Interrupted.into() } else { ExitCode::SUCCESS })
    }
}

/// Measures one store once, in a namespace that is removed even if the measurement fails.
async fn round(
    namespaces: &Namespaces,
    load: &Load,
    figures: &mut Figures,
    interrupt: &Interrupt,
    progress: &ProgressBar,
) -> Result<(), Failure> {
    let name = unique("bench");
    let measured = async {
        let store = namespaces.open(&name).await?;
        load.run(&store, figures, interrupt, progress).await
    };
    let measured = measured.await;
    let removed = namespaces.remove(&name).await;
    measured.map_err(|error| Failure::from(error).at(&figures.store))?;
    removed.map_err(|error| Failure::new("the namespace cannot be removed").because(&*error))
}

/// A bar of the time that the measurement takes, which is shown if standard error is a terminal.
fn progress(load: &Load, rounds: u32, stores: usize) -> ProgressBar {
    let due: Duration = (load.warm_up + load.duration) * rounds;
    let due = due.as_millis() * stores as u128;
    ProgressBar::new(u64::try_from(due).unwrap_or(u64::MAX))
        .with_style(output::bar("{bar:30} {elapsed} {wide_msg}"))
}
