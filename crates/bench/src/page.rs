//! The report as one HTML page with plots in SVG: no scripts, nothing to load.

use std::fmt::Write as _;

use super::{
    report::Report,
    round::{Round, RoundKind},
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Room for the labels of the axes.
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 36.0;
/// Shares of deliveries that the latency plot shows, evenly spaced by nines.
const SHARES: [f64; 9] = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0];

/// A series of a plot.
struct Series {
    name: &'static str,
    colour: &'static str,
    values: Vec<f64>,
}

/// The page.
pub(super) fn page(report: &Report) -> String {
    let mut html = String::from(concat!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>carillon bench</title>\n",
        "<style>body{font:15px system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#222}",
        "pre{background:#f4f4f4;padding:1rem;overflow-x:auto}svg{display:block;margin:1rem 0}",
        "text{font:12px system-ui,sans-serif;fill:#444}</style>\n<h1>carillon bench</h1>\n",
    ));
    // Writing into a string does not fail.
    let _ = writeln!(html, "<pre>{}</pre>", escape(&report.text()));
    let costs = series(report, Round::cost);
    if costs.iter().any(|series| !series.values.is_empty()) {
        let _ = writeln!(html, "<h2>CPU per delivery, µs, by round</h2>\n{}", bars(&costs));
    }
    let latencies = curves(report);
    if !latencies.is_empty() {
        let labels = SHARES.map(|share| format!("{}", share * 100.0));
        let _ = writeln!(
            html,
            "<h2>From publishing to reading, ms, by share of deliveries (%)</h2>\n{}",
            lines(&latencies, &labels)
        );
    }
    html.push_str("</html>\n");
    html
}

fn series(report: &Report, value: impl Fn(&Round) -> Option<f64>) -> Vec<Series> {
    let of = |way, name, colour| Series { name, colour, values: report.of(way).filter_map(&value).collect() };
    vec![
        of(RoundKind::Floor, "floor", "#999"),
        of(RoundKind::Forward, "receive and send", "#5a9e6f"),
        of(RoundKind::Node, "node", "#1769aa"),
        of(RoundKind::NodeWithSlow, "node, slow held", "#c2571a"),
    ]
}

fn curves(report: &Report) -> Vec<Series> {
    let ways = [
        (RoundKind::Floor, "floor", "#999"),
        (RoundKind::Forward, "receive and send", "#5a9e6f"),
        (RoundKind::Node, "node", "#1769aa"),
        (RoundKind::NodeWithSlow, "node, slow held", "#c2571a"),
    ];
    let curve = |(way, name, colour)| {
        let mut all = super::order::Times::default();
        report.of(way).for_each(|round| all.add(&round.figures.latency));
        report.of(way).next()?;
        let values = SHARES.iter().map(|share| all.quantile(*share) as f64 / 1000.0).collect();
        Some(Series { name, colour, values })
    };
    ways.into_iter().filter_map(curve).collect()
}

fn highest(series: &[Series]) -> f64 {
    series.iter().flat_map(|series| &series.values).fold(f64::MIN_POSITIVE, |top, value| top.max(*value))
}

fn bars(series: &[Series]) -> String {
    let top = highest(series);
    let rounds = series.iter().map(|series| series.values.len()).max().unwrap_or(1);
    let group = (WIDTH - LEFT) / rounds as f64;
    let width = group * 0.8 / series.len() as f64;
    let mut svg = frame(top, series);
    for (row, one) in series.iter().enumerate() {
        for (round, value) in one.values.iter().enumerate() {
            let height = value / top * (HEIGHT - BOTTOM);
            let x = LEFT + group * (round as f64 + 0.1) + width * row as f64;
            let y = HEIGHT - BOTTOM - height;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{}\"><title>{} {value:.2}</title></rect>",
                one.colour, one.name
            );
        }
    }
    svg + "</svg>"
}

fn lines(series: &[Series], labels: &[String]) -> String {
    let top = highest(series);
    let step = (WIDTH - LEFT - 20.0) / (labels.len() - 1).max(1) as f64;
    let mut svg = frame(top, series);
    for (at, label) in labels.iter().enumerate() {
        let x = LEFT + step * at as f64;
        let y = HEIGHT - BOTTOM + 16.0;
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{label}</text>");
    }
    for one in series {
        let point = |(at, value): (usize, &f64)| {
            format!("{:.1},{:.1}", LEFT + step * at as f64, (HEIGHT - BOTTOM) * (1.0 - value / top))
        };
        let points: Vec<String> = one.values.iter().enumerate().map(point).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            points.join(" "),
            one.colour
        );
    }
    svg + "</svg>"
}

/// The axes, four marks on the upright one, and the legend.
fn frame(top: f64, series: &[Series]) -> String {
    let mut svg =
        format!("<svg viewBox=\"0 -10 {WIDTH} {}\" width=\"{WIDTH}\" role=\"img\">\n", HEIGHT + 10.0);
    for quarter in 0..=4 {
        let share = f64::from(quarter) / 4.0;
        let y = (HEIGHT - BOTTOM) * (1.0 - share);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{WIDTH}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{:.2}</text>",
            LEFT - 6.0,
            y + 4.0,
            top * share
        );
    }
    let named = series.iter().filter(|series| !series.values.is_empty());
    for (at, one) in named.enumerate() {
        let x = LEFT + 140.0 * at as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            HEIGHT - 12.0,
            one.colour,
            x + 15.0,
            HEIGHT - 3.0,
            one.name
        );
    }
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
