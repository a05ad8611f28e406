//! Tables of figures and of their ratios, as Markdown.

/// The figures of the contenders: one for each contender and round.
pub(crate) struct Figures {
    title: String,
    unit: &'static str,
    rows: Vec<(String, Vec<f64>)>,
    ratios: Vec<Line>,
}

/// The value that a ratio or a figure should reach.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// The value is only reported.
    None,
}

struct Line {
    name: String,
    values: Vec<f64>,
    target: Target,
}

impl Figures {
    pub(crate) fn new(title: impl Into<String>, unit: &'static str) -> Self {
        Self { title: title.into(), unit, rows: Vec::new(), ratios: Vec::new() }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, figure: f64) {
        let name = name.into();
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, figures)) => figures.push(figure),
            None => self.rows.push((name, vec![figure])),
        }
    }

    fn of(&self, name: &str) -> Vec<f64> {
        let row = self.rows.iter().find(|(known, _)| known == name);
        row.map(|(_, figures)| figures.clone()).unwrap_or_default()
    }

    /// Compares two contenders, round by round.
    pub(crate) fn ratio(&mut self, of: &str, to: &str, target: Target) {
        self.ratio_named(format!("{of} / {to}"), of, to, target);
    }

    /// Like `ratio`, under another name. Adds no ratio if one of the two contenders has no figures.
    pub(crate) fn ratio_named(&mut self, name: String, of: &str, to: &str, target: Target) {
        let (of, to) = (self.of(of), self.of(to));
        let values: Vec<f64> = of.iter().zip(to).map(|(of, to)| of / to).collect();
        if !values.is_empty() {
            self.ratios.push(Line { name, values, target });
        }
    }

    /// The difference between two contenders, round by round.
    pub(crate) fn difference(&mut self, of: &str, to: &str, target: Target) {
        let values = self.of(of).iter().zip(self.of(to)).map(|(of, to)| of - to).collect();
        self.ratios.push(Line { name: format!("{of} − {to}"), values, target });
    }

    /// Compares the figure of one contender with a target.
    pub(crate) fn target(&mut self, name: &str, target: Target) {
        let values = self.of(name);
        self.ratios.push(Line { name: name.to_owned(), values, target });
    }

    pub(crate) fn print(self) {
        println!("\n### {}\n", self.title);
        println!("| {} | median | least | most |\n|---|---:|---:|---:|", self.unit);
        for (name, figures) in &self.rows {
            let [median, least, most] = spread(figures).map(figure);
            println!("| {name} | {median} | {least} | {most} |");
        }
        if self.ratios.is_empty() {
            return;
        }
        println!("\n| beside each other | median | least | most | target | |");
        println!("|---|---:|---:|---:|---:|---|");
        for Line { name, values, target } in &self.ratios {
            let spread = spread(values);
            let (target, verdict) = target.judge(spread[0]);
            let [median, least, most] = spread.map(figure);
            println!("| {name} | {median} | {least} | {most} | {target} | {verdict} |");
        }
    }
}

impl Target {
    pub(crate) fn judge(self, value: f64) -> (String, &'static str) {
        let (text, met) = match self {
            Self::AtLeast(least) => (format!("≥ {}", short(least)), value >= least),
            Self::AtMost(most) => (format!("≤ {}", short(most)), value <= most),
            Self::None => return (String::new(), ""),
        };
        (text, if met { "met" } else { "**missed**" })
    }
}

fn short(value: f64) -> String {
    if value >= 1_000.0 { figure(value) } else { value.to_string() }
}

/// Small values with three digits, large ones with their digits in groups of three.
pub(crate) fn figure(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => {
            let digits = format!("{v:.0}");
            let mut grouped = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            grouped
        }
    }
}

/// Median, least and most.
fn spread(values: &[f64]) -> [f64; 3] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [median(values), least, most]
}

pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(values, 0.5)
}

/// The value that is not exceeded by this share of the values.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() as f64 * share) as usize;
    sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
