//! Two diagrams as SVG: the latency by percentile, and the throughput over time.

use annals_conformance::BoxError;
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, PathElement,
        RGBColor, SVGBackend, WHITE,
    },
    style::{Color, IntoFont},
};

use crate::bench::figures::Figures;

const SIZE: (u32, u32) = (900, 720);
/// From the palette of Okabe and Ito, which colour-blind people can tell apart.
const COLOURS: [RGBColor; 2] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0)];
/// The viewer of the SVG picks the font: no font of this machine is used.
const FONT: &str = "sans-serif";
/// `plotters` reduces these by a quarter, because it has no measures of the font.
const TITLE: u32 = 25;
const LABEL: u32 = 18;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Line = (String, RGBColor, Vec<(f64, f64)>);

pub(crate) fn draw(stores: &[Figures]) -> Result<String, BoxError> {
    let lines = |points: fn(&Figures) -> Vec<(f64, f64)>| -> Vec<Line> {
        let stores = stores.iter().zip(COLOURS);
        stores.map(|(store, colour)| (store.store.clone(), colour, points(store))).collect()
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (above, below) = root.split_vertically(SIZE.1 / 2);
        latency(&above, &lines(Figures::by_percentile))?;
        throughput(&below, &lines(Figures::over_time))?;
        root.present()?;
    }
    Ok(svg)
}

fn latency(area: &Area<'_>, lines: &[Line]) -> Result<(), BoxError> {
    let points = || lines.iter().flat_map(|(_, _, points)| points);
    let nines = points().map(|(x, _)| *x).fold(1.0, f64::max).ceil();
    let least = points().map(|(_, y)| *y).fold(f64::INFINITY, f64::min);
    // The axis needs two different ends, also if nothing was measured or all latencies are equal.
    let least = if least.is_finite() { least.max(1e-6) * 0.8 } else { 0.1 };
    let most = points().map(|(_, y)| *y).fold(least * 2.0, f64::max) * 1.25;
    let mut chart = ChartBuilder::on(area)
        .caption("Latency of appends by percentile", (FONT, TITLE).into_font())
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..nines, (least..most).log_scale())?;
    chart
        .configure_mesh()
        .x_labels(nines as usize + 1)
        .x_label_formatter(&|nines| percentile(*nines))
        .x_desc("share of the appends that were as fast")
        .y_desc("ms")
        .y_label_formatter(&|ms| short(*ms))
        .label_style((FONT, LABEL))
        .max_light_lines(1)
        .draw()?;
    for (name, colour, points) in lines {
        let (style, key) = (colour.stroke_width(2), *colour);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], key.stroke_width(2)));
    }
    let mut labels = chart.configure_series_labels();
    labels.position(plotters::chart::SeriesLabelPosition::UpperLeft).label_font((FONT, LABEL));
    labels.background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    Ok(())
}

fn throughput(area: &Area<'_>, lines: &[Line]) -> Result<(), BoxError> {
    let points = || lines.iter().flat_map(|(_, _, points)| points);
    let seconds = points().map(|(x, _)| *x).fold(0.1, f64::max);
    let most = points().map(|(_, y)| *y).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption("Throughput over time", (FONT, TITLE).into_font())
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(0.0..seconds, 0.0..most)?;
    chart
        .configure_mesh()
        .x_desc("seconds since the beginning")
        .y_desc("events/s")
        .x_label_formatter(&|seconds| short(*seconds))
        .y_label_formatter(&|rate| short(*rate))
        .label_style((FONT, LABEL))
        .max_light_lines(1)
        .draw()?;
    for (_, colour, points) in lines {
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
    }
    Ok(())
}

/// A number of nines as a percentage: 2 is 99 %.
fn percentile(nines: f64) -> String {
    let digits = (nines - 2.0).max(0.0).ceil() as usize;
    format!("{:.digits$} %", (1.0 - 10f64.powf(-nines)) * 100.0)
}

/// A number with about two significant digits.
fn short(value: f64) -> String {
    let digits = match value {
        v if v == 0.0 || v >= 10.0 => 0,
        v if v >= 1.0 => 1,
        v => (1.0 - v.log10().floor()) as usize,
    };
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_short() {
        let nines = [(0.0, "0 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
        for (value, due) in nines {
            assert_eq!(percentile(value), due);
        }
        for (value, due) in [(0.0, "0"), (0.05, "0.05"), (1.5, "1.5"), (2.0, "2"), (1000.0, "1000")]
        {
            assert_eq!(short(value), due);
        }
    }
}
