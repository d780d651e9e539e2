//! One page of a list, and the document around it.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::query::Query;

/// Characters that stay as they are in links.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paging {
    /// From 1.
    pub page: i64,
    pub per_page: i64,
}

impl Paging {
    pub fn of(query: &Query) -> Result<Self, ApiError> {
        let number = |name, or: i64, most: i64, what: &str| match query.get(name) {
            None => Ok(or),
            Some(text) => match text.parse::<i64>() {
                Ok(number) if (1..=most).contains(&number) => Ok(number),
                _ => Err(ApiError::bad_query(what)),
            },
        };
        // The bound keeps the offset within a 64-bit integer.
        let page = number("page", 1, 1 << 40, "Page must be a positive integer")?;
        let per_page = number("per_page", 50, 5000, "Per page must be between 1 and 5000")?;
        Ok(Self { page, per_page })
    }

    pub fn offset(self) -> i64 {
        (self.page - 1) * self.per_page
    }
}

/// The document of a list: `address` is where it was asked for, without a query.
pub(crate) fn document(
    address: &str,
    query: &Query,
    paging: Paging,
    total: i64,
    resources: Vec<Value>,
    included: Option<Value>,
) -> Value {
    let pages = ((total + paging.per_page - 1) / paging.per_page).max(1);
    let href = |page: i64| {
        let mut href = format!("{address}?");
        for (name, value) in query.without_page() {
            let (name, value) = (encode(&name), encode(&value));
            href.push_str(&format!("{name}={value}&"));
        }
        href.push_str(&format!("page={page}&per_page={}", paging.per_page));
        json!({"href": href})
    };
    let next = if paging.page < pages { href(paging.page + 1) } else { Value::Null };
    let previous = if paging.page > 1 { href(paging.page - 1) } else { Value::Null };
    let mut document = json!({
        "pagination": {
            "total_results": total,
            "total_pages": pages,
            "first": href(1),
            "last": href(pages),
            "next": next,
            "previous": previous,
        },
        "resources": resources,
    });
    if let Some(included) = included {
        document["included"] = included;
    }
    document
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_page_to_page() {
        let query = Query::parse(Some("names=a%252C%C3%A9&page=2&per_page=2"));
        let paging = Paging::of(&query).unwrap();
        let document = document("http://api/v3/apps", &query, paging, 5, vec![], None);
        let pagination = &document["pagination"];
        assert_eq!(pagination["total_pages"], 3);
        let link = |name: &str| pagination[name]["href"].as_str().unwrap().to_owned();
        assert_eq!(link("next"), "http://api/v3/apps?names=a%252C%C3%A9&page=3&per_page=2");
        assert_eq!(link("previous"), "http://api/v3/apps?names=a%252C%C3%A9&page=1&per_page=2");
        let followed = Query::parse(link("last").split_once('?').map(|(_, query)| query));
        assert_eq!(followed.list("names"), query.list("names"));
    }

    #[test]
    fn an_empty_list_has_one_page() {
        let query = Query::default();
        let paging = Paging::of(&query).unwrap();
        assert_eq!(paging, Paging { page: 1, per_page: 50 });
        let document = document("u", &query, paging, 0, vec![], None);
        assert_eq!(document["pagination"]["total_pages"], 1);
        assert!(document["pagination"]["next"].is_null());
        assert!(document.get("included").is_none());
    }

    #[test]
    fn pages_out_of_range_are_refused() {
        for query in ["page=0", "page=x", "per_page=0", "per_page=5001", "page=99999999999999999"] {
            assert!(Paging::of(&Query::parse(Some(query))).is_err(), "{query}");
        }
    }
}
