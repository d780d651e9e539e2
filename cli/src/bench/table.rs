//! The rows as a table for a terminal.

use super::row::Row;

/// Lays rows out in columns.
pub fn render(rows: &[Row]) -> String {
    let header =
        ["", "p50", "p95", "unit", "n", "ratio", "against", "must", "goal", ""].map(str::to_owned);
    let mut lines = vec![header];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            // Words to the left, numbers to the right.
            if matches!(column, 0 | 3 | 6 | 9) {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cells(row: &Row) -> [String; 10] {
    let ratio = |value: Option<f64>| value.map(|value| format!("{value:.3}")).unwrap_or_default();
    let bound = |value: Option<f64>| {
        let text = value.map(|value| format!("{value:.3}")).unwrap_or_default();
        let text = if text.contains('.') { text.trim_end_matches('0') } else { &text };
        let text = text.trim_end_matches('.');
        if text.is_empty() { String::new() } else { format!("≤{text}") }
    };
    let met = match row.met {
        Some(true) => "met",
        Some(false) => "NOT MET",
        None => "",
    };
    [
        row.name.clone(),
        number(row.value),
        number(row.p95()),
        row.unit.to_owned(),
        row.samples.len().to_string(),
        ratio(row.ratio),
        row.against.clone().unwrap_or_default(),
        bound(row.must),
        bound(row.goal),
        met.to_owned(),
    ]
}

fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::{Bounds, Rows, at_most};

    #[test]
    fn columns_line_up() {
        let mut rows = Rows::default();
        rows.add("full cycle, runc", "ms", vec![40.0, 41.0, 142.0], None, Bounds::default());
        let against = Some("full cycle, runc");
        rows.add("full cycle, ours", "ms", vec![4.0, 4.1, 9.0], against, at_most(0.125, 0.1));
        let text = render(rows.all());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let at =
            |line: &str| line.chars().collect::<Vec<_>>().iter().collect::<String>().find("ms");
        assert_eq!(at(lines[1]), at(lines[2]));
        assert!(lines[1].contains("41.0") && lines[1].contains("142"), "{text}");
        assert!(lines[2].ends_with("met") && lines[2].contains("≤0.125"), "{text}");
    }
}
