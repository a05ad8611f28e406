//! A badge that a README can show: how many cases ran, and how many failed.

use std::io::{self, Write};

use crate::conformance::report::Report;

const LABEL: &str = "annals suite";

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let all = report.all();
    let run = all.cases() - all.ignored;
    let (text, colour) = match all.failed {
        0 => (format!("{run} cases passed"), "#2a7d2e"),
        failed => (format!("{failed} of {run} failed"), "#b3261e"),
    };
    // The text is stretched to this width, so that the font does not matter.
    let width = |text: &str| 7 * text.len() + 12;
    let (left, right) = (width(LABEL), width(&text));
    let whole = left + right;
    writeln!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{whole}" height="20" role="img" aria-label="{LABEL}: {text}">
<title>{LABEL}: {text}</title>
<rect width="{whole}" height="20" rx="3" fill="#444"/>
<path d="M{left} 0h{square}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{square}z" fill="{colour}"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="6" y="14" textLength="{}">{LABEL}</text>
<text x="{}" y="14" textLength="{}">{text}</text>
</g></svg>"##,
        left - 12,
        left + 6,
        right - 12,
        square = right - 3,
    )?;
    out.flush()
}
