//! The options that describe the load.

use std::time::Duration;

use clap::Args;

use crate::{bench::load::Load, failure::Failure};

#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How many writers append at the same time.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    writers: u16,
    /// How many streams the writers share [default: each has one].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    streams: Option<u32>,
    /// The size of an event's data.
    #[arg(long, value_name = "BYTES", default_value_t = 200)]
    size: u32,
    /// How many events each append writes.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// How long to measure: 500ms, 10s, 1m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    duration: Duration,
    /// How long to write before the measurement, so that caches are filled.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration)]
    warm_up: Duration,
    /// Then read all events back, and measure that as well.
    #[arg(long)]
    read: bool,
}

impl Options {
    pub(crate) fn check(&self) -> Result<Load, Failure> {
        if self.duration.is_zero() {
            return Err(Failure::usage("--duration is 0; use 10s or the like"));
        }
        Ok(Load {
            writers: u32::from(self.writers),
            streams: self.streams.unwrap_or(u32::from(self.writers)),
            size: self.size,
            batch: self.batch,
            duration: self.duration,
            warm_up: self.warm_up,
            read: self.read,
        })
    }
}

/// A number and a unit. Without a unit, seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("use a number with ms, s, m or h, as in 500ms, 10s, 1m".to_owned()),
    };
    /// One week: a longer time is a mistake.
    const MOST: f64 = 7.0 * 24.0 * 3600.0;
    match number.trim().parse::<f64>() {
        Ok(number) if (0.0..=MOST).contains(&(number * seconds)) => {
            Ok(Duration::from_secs_f64(number * seconds))
        }
        Ok(_) => Err("use a time of up to a week".to_owned()),
        Err(_) => Err("use a number with ms, s, m or h, as in 500ms, 10s, 1m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, due) in
            [("500ms", 500), ("10s", 10_000), ("1m", 60_000), ("2", 2_000), ("1.5s", 1_500)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(due)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "9999h", "NaN", "1 2s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
