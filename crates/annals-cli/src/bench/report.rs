//! The figures as text and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use crate::{
    bench::{
        figures::{Figures, ReadBack, Summary},
        load::Load,
    },
    output::{self, BOLD, DIM, NAME, styled},
};

pub(crate) struct Report {
    pub(crate) load: Load,
    /// One store, or two to compare.
    pub(crate) stores: Vec<Figures>,
    pub(crate) is_interrupted: bool,
}

/// A figure of the second store divided by that of the first, or `None` if the latter is 0.
fn ratio(first: f64, second: f64) -> Option<f64> {
    (first > 0.0).then(|| second / first)
}

/// Whether a greater value of this row is better.
fn is_more_better(row: &str) -> bool {
    row.ends_with("/s")
}

/// The better of two stores in a row.
fn better(row: &str, first: f64, second: f64) -> &'static str {
    let is_second = if is_more_better(row) { second > first } else { second < first };
    if first == second {
        "equal"
    } else if is_second {
        "second"
    } else {
        "first"
    }
}

impl Report {
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Load { writers, streams, size, batch, duration, warm_up, .. } = &self.load;
        let load = format!(
            "{writers} writers, {streams} streams, {batch} x {size} B an append, {duration:?} after \
             {warm_up:?} of warm-up"
        );
        output::pairs(out, &[("load", load)])?;
        let summaries: Vec<Summary> = self.stores.iter().map(Figures::summary).collect();
        let mut header: Vec<String> = self.stores.iter().map(|f| f.store.clone()).collect();
        let is_pair = summaries.len() > 1;
        if is_pair {
            header.extend(["ratio".to_owned(), "better".to_owned()]);
        }
        let mut rows = vec![(String::new(), header)];
        let names = summaries.first().map(Summary::rows).unwrap_or_default();
        for (nth, (name, _)) in names.iter().enumerate() {
            let values: Vec<f64> =
                summaries.iter().filter_map(|s| Some(s.rows().get(nth)?.1)).collect();
            let mut cells: Vec<String> = values.iter().map(|value| number(*value)).collect();
            if let [first, second] = values.as_slice() {
                let ratio = ratio(*first, *second).map(|ratio| format!("{}x", number(ratio)));
                cells.push(ratio.unwrap_or_else(|| "-".to_owned()));
                cells.push(better(name, *first, *second).to_owned());
            }
            rows.push(((*name).to_owned(), cells));
        }
        if is_pair {
            let rounds = |s: &Summary| {
                s.rounds.iter().map(|rate| number(*rate)).collect::<Vec<_>>().join(" ")
            };
            let cells =
                summaries.iter().map(rounds).chain([String::new(), String::new()]).collect();
            rows.push(("each round".to_owned(), cells));
        }
        table(out, &rows)?;
        for (Figures { store, .. }, Summary { read, .. }) in self.stores.iter().zip(&summaries) {
            if let Some(ReadBack { events, time, .. }) = read {
                let seconds = time.as_secs_f64();
                let text = format!("read {events} events back from {store} in {seconds:.3} s");
                writeln!(out, "{}", styled(DIM, text))?;
            }
        }
        if self.is_interrupted {
            writeln!(out, "{}", styled(BOLD, "ended early: these are the figures so far"))?;
        }
        out.flush()
    }

    pub(crate) fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        let Load { writers, streams, size, batch, duration, warm_up, .. } = &self.load;
        let summaries: Vec<Summary> = self.stores.iter().map(Figures::summary).collect();
        let stores: Vec<Value> = self.stores.iter().zip(&summaries).map(store).collect();
        let mut report = json!({
            "annals": env!("CARGO_PKG_VERSION"),
            "load": {
                "writers": writers,
                "streams": streams,
                "event_bytes": size,
                "events_per_append": batch,
                "seconds": duration.as_secs_f64(),
                "warm_up_seconds": warm_up.as_secs_f64(),
            },
            "stores": stores,
            "interrupted": self.is_interrupted,
        });
        if let ([first, second], Some(object)) = (summaries.as_slice(), report.as_object_mut()) {
            let name = |name: &str| name.replace(' ', "_").replace("/s", "_per_second");
            let ratios = first.rows().into_iter().zip(second.rows());
            let ratios: serde_json::Map<String, Value> =
                ratios.map(|((row, a), (_, b))| (name(row), json!(ratio(a, b)))).collect();
            object.insert("second_to_first".to_owned(), Value::Object(ratios));
            let rows = first.rows().into_iter().zip(second.rows());
            let better: serde_json::Map<String, Value> =
                rows.map(|((row, a), (_, b))| (name(row), better(row, a, b).into())).collect();
            object.insert("better".to_owned(), Value::Object(better));
        }
        writeln!(out, "{report:#}")?;
        out.flush()
    }
}

fn store((figures, summary): (&Figures, &Summary)) -> Value {
    let read = summary.read.as_ref().map(|read| {
        json!({
            "events": read.events,
            "seconds": read.time.as_secs_f64(),
            "events_per_second": read.rate,
        })
    });
    json!({
        "store": figures.store,
        "appends": summary.appends,
        "events": summary.events,
        "seconds": summary.time.as_secs_f64(),
        "appends_per_second": summary.appends_per_second,
        "events_per_second": summary.events_per_second,
        "latency_ms": {
            "p50": summary.p50,
            "p90": summary.p90,
            "p99": summary.p99,
            "p99.9": summary.p99_9,
            "max": summary.max,
        },
        "rounds_appends_per_second": summary.rounds,
        "read": read,
    })
}

/// Prints names, and columns of numbers aligned to the right.
fn table(out: &mut impl Write, rows: &[(String, Vec<String>)]) -> io::Result<()> {
    let length = |text: &str| text.chars().count();
    let names = rows.iter().map(|(name, _)| length(name)).max().unwrap_or(0);
    let columns = rows.first().map_or(0, |(_, cells)| cells.len());
    let width = |nth: usize| {
        rows.iter().filter_map(|(_, cells)| cells.get(nth).map(|cell| length(cell))).max()
    };
    let widths: Vec<usize> = (0..columns).map(|nth| width(nth).unwrap_or(0)).collect();
    for (name, cells) in rows {
        let pad = " ".repeat(names - length(name));
        write!(out, "{}{pad}", styled(NAME, name))?;
        for (cell, width) in cells.iter().zip(&widths) {
            write!(out, "  {cell:>width$}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// A number with three significant digits or more, and commas between thousands.
fn number(value: f64) -> String {
    if value < 99.95 {
        let digits = match value {
            0.0 => 0,
            v if v >= 9.995 => 1,
            v if v >= 0.9995 => 2,
            v if v >= 0.09995 => 3,
            _ => 4,
        };
        return format!("{value:.digits$}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_store_is_named() {
        for (row, first, second, due) in [
            ("appends/s", 10.0, 20.0, "second"),
            ("read events/s", 20.0, 10.0, "first"),
            ("p99.9 ms", 1.0, 2.0, "first"),
            ("max ms", 2.0, 1.0, "second"),
            ("p50 ms", 1.0, 1.0, "equal"),
        ] {
            assert_eq!(better(row, first, second), due, "{row}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, due) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (12.345, "12.3"),
            (0.0084, "0.0084"),
            (999.6, "1,000"),
            (1234567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), due);
        }
    }
}
