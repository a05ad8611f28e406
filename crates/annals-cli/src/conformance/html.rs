//! The results as one HTML page, with everything in it.

use std::{
    fmt::Display,
    io::{self, Write},
};

use annals_conformance::{Counts, VERSION};

use crate::conformance::{json::outcome, report::Report};

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 60em; padding: 0 1em }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid #8884; padding: .2em .6em; text-align: left; vertical-align: top }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
pre { margin: 0; white-space: pre-wrap }
.failed { color: #c22 } .ignored { color: #888 } .passed { color: #282 }
:root { color-scheme: light dark }
";

pub(super) fn write(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let all = report.all();
    let title = format!("annals conformance: {}", report.backend);
    let verdict = match all.failed {
        0 => "no case failed".to_owned(),
        failed => format!("{failed} of {} cases failed", all.cases()),
    };
    let began = report.began.format("%Y-%m-%d %H:%M UTC");
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p class=\"{}\"><strong>{verdict}</strong></p>\n\
         <p>Store <code>{}</code>; suite {VERSION}, seed {}; begun {began}.</p>",
        if all.failed == 0 { "passed" } else { "failed" },
        escaped(&report.store),
        report.seed,
        title = escaped(&title),
    )?;
    writeln!(out, "<h2>Groups</h2>\n<table><tr><th>group</th>")?;
    for head in ["passed", "refused as declared", "ignored", "failed", "seconds"] {
        write!(out, "<th class=\"n\">{head}</th>")?;
    }
    writeln!(out, "</tr>")?;
    for (name, counts) in report.groups() {
        row(out, name, counts)?;
    }
    row(out, "all", all)?;
    writeln!(out, "</table>\n<h2>Cases</h2>\n<table>")?;
    writeln!(out, "<tr><th>case</th><th>outcome</th><th>rules</th><th class=\"n\">s</th></tr>")?;
    for result in &report.results {
        let (word, reason) = outcome(&result.outcome);
        let class = word.split(' ').next().unwrap_or_default();
        let rules: Vec<_> = result.case.rules.iter().map(ToString::to_string).collect();
        let reason = reason.map(|reason| format!("<pre>{}</pre>", escaped(reason)));
        writeln!(
            out,
            "<tr><td>{}</td><td class=\"{class}\">{word}{}</td><td>{}</td><td class=\"n\">{:.1}</td></tr>",
            escaped(result.name()),
            reason.unwrap_or_default(),
            rules.join(", "),
            result.time.as_secs_f64(),
        )?;
    }
    writeln!(out, "</table>\n</body></html>")?;
    out.flush()
}

fn row(out: &mut impl Write, name: &str, counts: Counts) -> io::Result<()> {
    let Counts { passed, declared, ignored, failed, time, .. } = counts;
    write!(out, "<tr><td>{name}</td>")?;
    for count in [passed, declared, ignored, failed] {
        write!(out, "<td class=\"n\">{count}</td>")?;
    }
    writeln!(out, "<td class=\"n\">{:.1}</td></tr>", time.as_secs_f64())
}

/// Text that is shown as it is.
fn escaped(text: impl Display) -> String {
    let text = text.to_string();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
