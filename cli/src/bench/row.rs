//! What is measured, row by row, and what each row is held to.

use serde::Serialize;

use super::statistics::{p50, p95};

/// One figure. In JSON it is what `--json` promises.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was measured on what.
    pub name: String,
    /// The median of the samples.
    pub value: f64,
    /// Of the value and of the samples.
    pub unit: &'static str,
    /// As they were taken, in order.
    pub samples: Vec<f64>,
    /// The row that this one is compared with.
    pub against: Option<String>,
    /// Value over the other row's value; both were measured in the same rounds.
    pub ratio: Option<f64>,
    /// The most that the ratio may be, or the value where nothing is compared.
    pub must: Option<f64>,
    /// What we want it to be.
    pub goal: Option<f64>,
    /// Whether `must` is kept; absent where nothing is asked.
    pub met: Option<bool>,
}

/// All rows of a run.
#[derive(Debug, Default)]
pub struct Rows {
    rows: Vec<Row>,
}

/// What a row is held to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// See [`Row::must`].
    pub must: Option<f64>,
    /// See [`Row::goal`].
    pub goal: Option<f64>,
}

/// Bounds of a row that must keep the first and wants the second.
pub fn at_most(must: f64, goal: f64) -> Bounds {
    Bounds { must: Some(must), goal: Some(goal) }
}

impl Rows {
    /// Adds a row; without samples there is none.
    pub fn add(
        &mut self,
        name: &str,
        unit: &'static str,
        samples: Vec<f64>,
        against: Option<&str>,
        bounds: Bounds,
    ) {
        let Some(value) = p50(&samples) else { return };
        let ratio = against.and_then(|other| self.value(other)).map(|other| value / other);
        let held = if against.is_some() { ratio } else { Some(value) };
        let met = bounds.must.zip(held).map(|(must, held)| held <= must);
        self.rows.push(Row {
            name: name.to_owned(),
            value,
            unit,
            samples,
            against: against.map(str::to_owned),
            ratio,
            must: bounds.must,
            goal: bounds.goal,
            met,
        });
    }

    /// The value of a row.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.get(name).map(|row| row.value)
    }

    /// A row by name.
    pub fn get(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// In the order in which they were added.
    pub fn all(&self) -> &[Row] {
        &self.rows
    }

    /// Which of these names have no row.
    pub fn missing<'a>(&self, required: &[&'a str]) -> Vec<&'a str> {
        required.iter().copied().filter(|name| self.get(name).is_none()).collect()
    }
}

impl Row {
    /// The tail, for the table.
    pub fn p95(&self) -> f64 {
        p95(&self.samples).unwrap_or(self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_held_to_its_bound_and_a_lone_value_to_its_own() {
        let mut rows = Rows::default();
        rows.add("runc", "ms", vec![40.0, 42.0, 41.0], None, Bounds::default());
        rows.add("ours", "ms", vec![4.1, 8.2, 2.0], Some("runc"), at_most(0.125, 0.05));
        rows.add("memory", "MiB", vec![13.0], None, at_most(12.0, 8.0));
        rows.add("nothing", "ms", Vec::new(), None, Bounds::default());
        let ours = rows.get("ours").unwrap();
        assert_eq!((ours.value, ours.met), (4.1, Some(true)));
        assert!((ours.ratio.unwrap() - 0.1).abs() < 1e-9);
        assert_eq!(rows.get("memory").unwrap().met, Some(false));
        assert_eq!(rows.get("runc").unwrap().met, None);
        assert_eq!(rows.missing(&["runc", "nothing", "ours"]), ["nothing"]);
    }

    #[test]
    fn a_row_without_its_other_keeps_no_promise() {
        let mut rows = Rows::default();
        rows.add("ours", "ms", vec![1.0], Some("runc"), at_most(0.1, 0.1));
        let ours = rows.get("ours").unwrap();
        assert_eq!((ours.ratio, ours.met), (None, None));
    }

    #[test]
    fn json_has_the_promised_fields_and_no_others() {
        let mut rows = Rows::default();
        rows.add("a", "ms", vec![1.0, 3.0], None, Bounds::default());
        let json = serde_json::to_value(&rows.all()[0]).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
        let promised =
            ["name", "value", "unit", "samples", "against", "ratio", "must", "goal", "met"];
        assert_eq!(names, promised);
        assert_eq!(json["samples"], serde_json::json!([1.0, 3.0]));
        assert_eq!(json["ratio"], serde_json::Value::Null);
    }
}
