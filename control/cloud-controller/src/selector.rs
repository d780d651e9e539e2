//! Label selectors: `k`, `!k`, `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, by commas.

use crate::error::ApiError;
use crate::store::select::Bind;

/// A condition on a column of labels.
#[derive(Debug)]
pub(crate) struct Condition {
    pub sql: String,
    pub values: Vec<Bind>,
}

/// The conditions that all must hold for the labels in `column`.
pub(crate) fn conditions(text: &str, column: &str) -> Result<Vec<Condition>, ApiError> {
    let parts = requirements(text);
    if parts.is_empty() {
        return Err(ApiError::bad_query("Missing label_selector value"));
    }
    parts.iter().map(|part| condition(part.trim(), column)).collect()
}

/// Splits at commas outside of parentheses.
fn requirements(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    for char in text.chars() {
        match char {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(char);
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn condition(part: &str, column: &str) -> Result<Condition, ApiError> {
    let bad = || ApiError::bad_query("Invalid label_selector value");
    let find = |key: &str, test: &str, values: Vec<Bind>| {
        let sql = format!(
            "EXISTS (SELECT 1 FROM json_each({column}) AS label WHERE label.key = ?{test})"
        );
        let mut all = vec![Bind::from(key)];
        all.extend(values);
        Condition { sql, values: all }
    };
    let not =
        |condition: Condition| Condition { sql: format!("NOT {}", condition.sql), ..condition };
    let key = |text: &str| {
        let text = text.trim();
        let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if text.is_empty() || !text.chars().all(good) { Err(bad()) } else { Ok(text.to_owned()) }
    };
    for (word, negative) in [(" notin ", true), (" in ", false)] {
        // A space may be missing between the word and the parenthesis.
        let spaced = part.replacen('(', " (", 1);
        if let Some((name, set)) = spaced.split_once(word) {
            let set = set.trim().strip_prefix('(').and_then(|set| set.strip_suffix(')'));
            let set: Vec<Bind> = set.ok_or_else(bad)?.split(',').map(|v| v.trim().into()).collect();
            let marks = vec!["?"; set.len()].join(", ");
            let found = find(&key(name)?, &format!(" AND label.value IN ({marks})"), set);
            return Ok(if negative { not(found) } else { found });
        }
    }
    for (sign, negative) in [("!=", true), ("==", false), ("=", false)] {
        if let Some((name, value)) = part.split_once(sign) {
            let found = find(&key(name)?, " AND label.value = ?", vec![value.trim().into()]);
            return Ok(if negative { not(found) } else { found });
        }
    }
    match part.strip_prefix('!') {
        Some(name) => Ok(not(find(&key(name)?, "", Vec::new()))),
        None => Ok(find(&key(part)?, "", Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

    async fn matches(selector: &str, labels: &str) -> bool {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let mut all = true;
        for condition in conditions(selector, "json(?)").unwrap() {
            let sql = format!("SELECT {}", condition.sql);
            let mut query = sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql)).bind(labels);
            for value in condition.values {
                query = match value {
                    Bind::Text(text) => query.bind(text),
                    Bind::Int(number) => query.bind(number),
                };
            }
            all &= query.fetch_one(&mut conn).await.unwrap();
        }
        all
    }

    #[tokio::test]
    async fn the_grammar_is_kubernetes() {
        let labels = r#"{"env":"prod","tier":"web"}"#;
        for selector in [
            "env",
            "!other",
            "env=prod",
            "env==prod",
            "env!=dev",
            "other!=x",
            "env in (dev,prod)",
            "env in(prod)",
            "env notin (dev)",
            "env=prod,tier=web",
            "env in (a, prod),!x",
        ] {
            assert!(matches(selector, labels).await, "{selector}");
        }
        for selector in ["other", "!env", "env=dev", "env!=prod", "env notin (prod)", "env,x"] {
            assert!(!matches(selector, labels).await, "{selector}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for selector in ["", ",", "a b", "env in prod", "=x", "a'--"] {
            assert!(conditions(selector, "labels").is_err(), "{selector}");
        }
    }
}
