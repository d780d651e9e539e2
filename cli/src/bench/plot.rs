//! The rows that people ask about first, as bars in an SVG file.

use std::fmt::Write;

use super::row::Row;

const WIDTH: u32 = 860;
const BAR: u32 = 20;
const STEP: u32 = 28;
const LABELS: u32 = 250;
const RIGHT: u32 = 120;

/// A group of bars on one scale.
#[derive(Debug)]
pub struct Chart<'a> {
    /// Its heading.
    pub title: &'a str,
    /// Its bars, and how each is labelled.
    pub bars: Vec<(&'a str, &'a Row)>,
}

/// The charts below each other, with a line about the machine. Colours are chosen to be read on
/// light and on dark backgrounds.
pub fn render(charts: &[Chart<'_>], machine: &str) -> String {
    let mut body = String::new();
    let mut y = 30;
    for chart in charts {
        let _ = writeln!(body, r#"<text x="8" y="{y}" class="t">{}</text>"#, escape(chart.title));
        y += 14;
        let most = chart.bars.iter().map(|(_, row)| row.p95().max(row.value)).fold(0.0, f64::max);
        for (label, row) in &chart.bars {
            bar(&mut body, label, row, most, y);
            y += STEP;
        }
        y += 30;
    }
    for line in wrap(machine, 110) {
        let _ = writeln!(body, r#"<text x="8" y="{y}" class="m">{}</text>"#, escape(&line));
        y += 16;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{y}\" \
         viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <style>text{{fill:#808080}}.t{{font-weight:bold;font-size:15px}}.m{{font-size:11px}}\
         .o{{fill:#2e9e5b}}.p{{fill:#7a8fb0}}.l{{stroke:#c0504d;stroke-width:2}}</style>\n\
         {body}</svg>\n"
    )
}

fn bar(body: &mut String, label: &str, row: &Row, most: f64, y: u32) {
    let room = f64::from(WIDTH - LABELS - RIGHT);
    let scale = |value: f64| if most > 0.0 { value / most * room } else { 0.0 };
    let class = if label.starts_with("Bloomery") { "o" } else { "p" };
    let (length, tail) = (scale(row.value).max(1.0), scale(row.p95()));
    let (middle, text) = (y + BAR / 2, y + BAR * 3 / 4);
    let left = f64::from(LABELS);
    let end = left + length.max(tail) + 8.0;
    let _ = writeln!(
        body,
        r#"<text x="{}" y="{text}" text-anchor="end">{}</text>"#,
        LABELS - 8,
        escape(label)
    );
    let _ = writeln!(
        body,
        r#"<rect x="{LABELS}" y="{y}" width="{length:.1}" height="{BAR}" class="{class}"/>"#
    );
    let _ = writeln!(
        body,
        r#"<line x1="{:.1}" y1="{middle}" x2="{:.1}" y2="{middle}" class="l"/>"#,
        left + length,
        left + tail.max(length)
    );
    let _ = writeln!(body, r#"<text x="{end:.1}" y="{text}">{:.2} {}</text>"#, row.value, row.unit);
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + 1 + word.chars().count() > width
        {
            lines.push(word.to_owned());
            continue;
        }
        if !lines[last].is_empty() {
            lines[last].push(' ');
        }
        lines[last].push_str(word);
    }
    lines
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::{Bounds, Rows};

    /// Tags opened and closed in order, and text that holds no bare `<` or `&`.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        let mut rest = svg;
        while let Some(at) = rest.find('<') {
            let text = &rest[..at];
            let entities = text.matches("&amp;").count()
                + text.matches("&lt;").count()
                + text.matches("&gt;").count()
                + text.matches("&quot;").count();
            assert_eq!(text.matches('&').count(), entities, "a bare & in {text:?}");
            let end = rest[at..].find('>').expect("a tag that does not end") + at;
            let tag = &rest[at + 1..end];
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap().to_owned());
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "{open:?}");
    }

    #[test]
    fn the_plot_is_well_formed_whatever_names_hold() {
        let mut rows = Rows::default();
        rows.add("a", "ms", vec![40.0, 50.0], None, Bounds::default());
        rows.add("b", "ms", vec![3.0], None, Bounds::default());
        let bars = vec![("runc <\"1\" & 2>", &rows.all()[0]), ("Bloomery", &rows.all()[1])];
        let charts = [Chart { title: "A & B", bars }, Chart { title: "none", bars: Vec::new() }];
        let svg = render(&charts, &"CPU <x> & more ".repeat(30));
        assert_well_formed(&svg);
        assert!(svg.contains("40.00 ms") && svg.contains("class=\"o\""));
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn long_lines_are_wrapped() {
        assert_eq!(wrap("aa bb cc", 5), ["aa bb", "cc"]);
        assert_eq!(wrap("", 5), [""]);
    }
}
