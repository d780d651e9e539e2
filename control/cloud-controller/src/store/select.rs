//! Lists: filters, order and pages as SQL.

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, FromRow, SqliteConnection};

use crate::error::ApiError;
use crate::page::Paging;
use crate::query::Query;
use crate::selector;
use crate::time;

/// A value of a condition.
#[derive(Clone, Debug)]
pub(crate) enum Bind {
    Text(String),
    Int(i64),
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// Rows of one table under conditions that must all hold. Conditions are SQL of ours; whatever a
/// client sent is bound.
#[derive(Clone, Debug)]
pub(crate) struct Select {
    table: &'static str,
    conditions: Vec<String>,
    binds: Vec<Bind>,
    order: String,
}

impl Select {
    pub fn from(table: &'static str) -> Self {
        let order = format!("{table}.created_at, {table}.id");
        Self { table, conditions: Vec::new(), binds: Vec::new(), order }
    }

    /// Adds a condition with `?` for each value.
    pub fn only<B: Into<Bind>>(
        &mut self,
        condition: impl Into<String>,
        values: impl IntoIterator<Item = B>,
    ) -> &mut Self {
        self.conditions.push(condition.into());
        self.binds.extend(values.into_iter().map(Into::into));
        self
    }

    /// The column is one of these.
    pub fn any(&mut self, column: &str, values: &[String]) -> &mut Self {
        let marks = vec!["?"; values.len()].join(", ");
        self.only(format!("{column} IN ({marks})"), values.iter().map(String::as_str))
    }

    /// Rows that one or the other would keep. Both are on tables that the conditions name.
    pub fn either(&mut self, one: Self, other: Self) -> &mut Self {
        let (left, right) = (one.condition(), other.condition());
        let binds = one.binds.into_iter().chain(other.binds);
        self.only(format!("({left}) OR ({right})"), binds)
    }

    /// The column is a value of `inner`'s column.
    pub fn within(&mut self, column: &str, of: &str, inner: &Self) -> &mut Self {
        let (table, condition) = (inner.table, inner.condition());
        let sql = format!("{column} IN (SELECT {table}.{of} FROM {table} WHERE {condition})");
        self.only(sql, inner.binds.clone())
    }

    fn condition(&self) -> String {
        match self.conditions.is_empty() {
            true => "TRUE".into(),
            false => format!("({})", self.conditions.join(") AND (")),
        }
    }

    /// The column is one of those that the parameter lists, if it is there.
    pub fn filter(&mut self, query: &Query, parameter: &str, column: &str) -> &mut Self {
        if let Some(values) = query.list(parameter) {
            self.any(column, &values);
        }
        self
    }

    /// `guids`, `created_ats`, `updated_ats`.
    pub fn common_filters(&mut self, query: &Query) -> Result<&mut Self, ApiError> {
        let table = self.table;
        self.filter(query, "guids", &format!("{table}.guid"));
        for (parameter, column) in [("created_ats", "created_at"), ("updated_ats", "updated_at")] {
            for (operator, text) in query.times(parameter) {
                let second = |text: &str| {
                    let bad = || {
                        ApiError::bad_query(format!("{parameter} has an invalid timestamp format."))
                    };
                    time::parse(text).map(|time| time / 1_000_000).ok_or_else(bad)
                };
                // Times are shown in seconds, so they are compared in seconds.
                let column = format!("({table}.{column} / 1000000)");
                match operator {
                    Some(operator) => {
                        self.only(format!("{column} {operator} ?"), [second(&text)?]);
                    }
                    None => {
                        let times = text.split(',').map(second).collect::<Result<Vec<_>, _>>()?;
                        let marks = vec!["?"; times.len()].join(", ");
                        self.only(format!("{column} IN ({marks})"), times);
                    }
                }
            }
        }
        Ok(self)
    }

    /// `label_selector`.
    pub fn labels(&mut self, query: &Query) -> Result<&mut Self, ApiError> {
        if let Some(text) = query.get("label_selector") {
            for condition in selector::conditions(text, &format!("{}.labels", self.table))? {
                self.only(condition.sql, condition.values);
            }
        }
        Ok(self)
    }

    /// `order_by`: one of `columns`, with `-` before it for descending.
    pub fn order(&mut self, query: &Query, columns: &[&str]) -> Result<&mut Self, ApiError> {
        let Some(wanted) = query.get("order_by") else { return Ok(self) };
        let (column, direction) = match wanted.strip_prefix('-') {
            Some(column) => (column, "DESC"),
            None => (wanted.strip_prefix('+').unwrap_or(wanted), "ASC"),
        };
        let column = ["created_at", "updated_at"]
            .iter()
            .chain(columns)
            .find(|known| **known == column)
            .ok_or_else(|| {
                let known: Vec<String> = ["created_at", "updated_at"]
                    .iter()
                    .chain(columns)
                    .map(|known| format!("'{known}'"))
                    .collect();
                ApiError::bad_query(format!("Order by can only be: {}", known.join(", ")))
            })?;
        let table = self.table;
        self.order = format!("{table}.{column} {direction}, {table}.id {direction}");
        Ok(self)
    }

    /// The order where the query does not say.
    pub fn default_order(&mut self, order: &str) -> &mut Self {
        self.order = order.to_owned();
        self
    }

    fn tail(&self) -> String {
        format!(" WHERE {}", self.condition())
    }

    fn bound<'q>(
        &self,
        sql: String,
    ) -> sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for bind in &self.binds {
            query = match bind {
                Bind::Text(text) => query.bind(text.clone()),
                Bind::Int(number) => query.bind(*number),
            };
        }
        query
    }

    pub async fn count(&self, conn: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
        let sql = format!("SELECT count(*) FROM {}{}", self.table, self.tail());
        let row = self.bound(sql).fetch_one(conn).await?;
        <(i64,)>::from_row(&row).map(|(count,)| count)
    }

    /// All rows.
    pub async fn all<T>(&self, conn: &mut SqliteConnection) -> Result<Vec<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, SqliteRow>,
    {
        let (table, tail, order) = (self.table, self.tail(), &self.order);
        let sql = format!("SELECT {table}.* FROM {table}{tail} ORDER BY {order}");
        let rows = self.bound(sql).fetch_all(conn).await?;
        rows.iter().map(T::from_row).collect()
    }

    /// The first row.
    pub async fn first<T>(&self, conn: &mut SqliteConnection) -> Result<Option<T>, sqlx::Error>
    where
        T: for<'r> FromRow<'r, SqliteRow>,
    {
        let (table, tail, order) = (self.table, self.tail(), &self.order);
        let sql = format!("SELECT {table}.* FROM {table}{tail} ORDER BY {order} LIMIT 1");
        let row = self.bound(sql).fetch_optional(conn).await?;
        row.as_ref().map(T::from_row).transpose()
    }

    /// One page of rows, and how many rows there are in all.
    pub async fn page<T>(
        &self,
        conn: &mut SqliteConnection,
        paging: Paging,
    ) -> Result<(Vec<T>, i64), sqlx::Error>
    where
        T: for<'r> FromRow<'r, SqliteRow>,
    {
        let total = self.count(conn).await?;
        let (table, tail, order) = (self.table, self.tail(), &self.order);
        let sql = format!("SELECT {table}.* FROM {table}{tail} ORDER BY {order} LIMIT ? OFFSET ?");
        let query = self.bound(sql).bind(paging.per_page).bind(paging.offset());
        let rows = query.fetch_all(conn).await?;
        Ok((rows.iter().map(T::from_row).collect::<Result<_, _>>()?, total))
    }
}

/// The row `guid` of a table.
pub(crate) async fn by_guid<T>(
    conn: &mut SqliteConnection,
    table: &'static str,
    guid: &str,
) -> Result<Option<T>, sqlx::Error>
where
    T: for<'r> FromRow<'r, SqliteRow>,
{
    let mut select = Select::from(table);
    select.only(format!("{table}.guid = ?"), [guid]);
    select.first(conn).await
}
