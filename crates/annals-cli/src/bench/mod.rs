//! `annals bench`: how many events a store takes, and how long an append waits.

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
    url::shown,
};

#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct Bench {
    /// Where the store is, or could be.
    #[arg(env = "ANNALS_URL", hide_env_values = true)]
    url: String,
    /// A second store, measured in turn with the first: a round each, and so on.
    #[arg(long, value_name = "URL")]
    vs: Option<String>,
    /// How many rounds each of two stores has.
    #[arg(long, value_name = "N", default_value_t = 3, requires = "vs",
          value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[command(flatten)]
    load: options::Options,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Draw the latency by percentile and the throughput over time.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

const AFTER: &str = "\
What is measured: a closed loop. Each writer appends to a stream, waits for the answer, and appends \
again, expecting any version, so that nothing conflicts. Latency is the time from the call to its \
answer. A store that stalls is asked less often meanwhile, so that the percentiles tell what these \
writers met, and not what clients would meet that come at a steady rate (\"coordinated omission\"). \
The data of events is random and cannot be compressed.

Everything is written to a namespace of its own next to the store named, and removed at the end. What \
a run that was killed leaves behind is recognised by `annals_tmp_` in its name.

Ctrl-C ends early, with the figures so far, and exit status 130.";

impl Bench {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let load = self.load.check()?;
        if let Some(path) = &self.svg {
            // Before anything runs: whoever waits for it wants to know now.
            std::fs::File::create(path).map_err(|error| Failure::from(error).at(path.display()))?;
        }
        let mut stores = Vec::new();
        for url in [Some(&self.url), self.vs.as_ref()].into_iter().flatten() {
            stores.push((Namespaces::at(url).await?, Figures::new(shown(url), &load)));
        }
        let rounds = if self.vs.is_some() { self.rounds } else { 1 };
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
                anstream::eprintln!("{left}");
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
            let drawn = drawn.map_err(|e| Failure::new("nothing can be drawn").because(&*e))?;
            std::fs::write(path, drawn).map_err(|e| Failure::from(e).at(path.display()))?;
        }
        Ok(if is_interrupted { Code::Interrupted.into() } else { ExitCode::SUCCESS })
    }
}

/// Measures one store once, in a namespace that is removed whatever happens.
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

/// On standard error, where that is a terminal: the seconds that are due.
fn progress(load: &Load, rounds: u32, stores: usize) -> ProgressBar {
    let due: Duration = (load.warm_up + load.duration) * rounds;
    let due = due.as_millis() * stores as u128;
    ProgressBar::new(u64::try_from(due).unwrap_or(u64::MAX))
        .with_style(output::bar("{bar:30} {elapsed} {wide_msg}"))
}
