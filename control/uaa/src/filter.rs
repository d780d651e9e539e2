//! SCIM filters, as far as Cloud Foundry's clients use them: equality, `and`, `or`, parentheses.

/// Alternatives of comparisons that must all hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub any_of: Vec<Vec<Comparison>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    pub attribute: Attribute,
    pub value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    Id,
    UserName,
    Origin,
    Email,
}

/// The most alternatives that a filter may have after its parentheses are multiplied out.
const MOST: usize = 1000;

impl Filter {
    /// Reads a filter, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words = words(text)?;
        let mut parser = Parser { words: &words, depth: 0 };
        let any_of = parser.alternatives()?;
        match parser.words.first() {
            None => Ok(Self { any_of }),
            Some(word) => Err(format!("unexpected {}", word.show())),
        }
    }
}

#[derive(Debug)]
enum Word {
    Bare(String),
    Quoted(String),
    Open,
    Close,
}

impl Word {
    fn show(&self) -> String {
        match self {
            Self::Bare(text) => text.clone(),
            Self::Quoted(text) => format!("{text:?}"),
            Self::Open => "(".into(),
            Self::Close => ")".into(),
        }
    }
}

fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(&next) = rest.peek() {
        match next {
            ' ' | '+' | '\t' => drop(rest.next()),
            '(' => {
                rest.next();
                words.push(Word::Open);
            }
            ')' => {
                rest.next();
                words.push(Word::Close);
            }
            '"' | '\'' => {
                rest.next();
                let mut value = String::new();
                loop {
                    match rest.next() {
                        None => return Err("a quotation is not closed".into()),
                        Some('\\') => value.extend(rest.next()),
                        Some(end) if end == next => break,
                        Some(char) => value.push(char),
                    }
                }
                words.push(Word::Quoted(value));
            }
            _ => {
                let mut bare = String::new();
                while let Some(char) = rest.next_if(|char| !" ()\"'\t".contains(*char)) {
                    bare.push(char);
                }
                words.push(Word::Bare(bare));
            }
        }
    }
    Ok(words)
}

struct Parser<'a> {
    words: &'a [Word],
    depth: u32,
}

impl Parser<'_> {
    fn keyword(&mut self, keyword: &str) -> bool {
        let Some((Word::Bare(word), rest)) = self.words.split_first() else { return false };
        let found = word.eq_ignore_ascii_case(keyword);
        if found {
            self.words = rest;
        }
        found
    }

    fn alternatives(&mut self) -> Result<Vec<Vec<Comparison>>, String> {
        let mut any_of = self.conjunction()?;
        while self.keyword("or") {
            any_of.extend(self.conjunction()?);
        }
        if any_of.len() > MOST { Err("too many alternatives".into()) } else { Ok(any_of) }
    }

    fn conjunction(&mut self) -> Result<Vec<Vec<Comparison>>, String> {
        let mut product = self.operand()?;
        while self.keyword("and") {
            let right = self.operand()?;
            if product.len() * right.len() > MOST {
                return Err("too many alternatives".into());
            }
            let pairs =
                product.iter().flat_map(|left| right.iter().map(move |right| (left, right)));
            product = pairs.map(|(left, right)| [&left[..], &right[..]].concat()).collect();
        }
        Ok(product)
    }

    fn operand(&mut self) -> Result<Vec<Vec<Comparison>>, String> {
        match self.words {
            [Word::Open, rest @ ..] => {
                self.depth += 1;
                if self.depth > 32 {
                    return Err("too many parentheses".into());
                }
                self.words = rest;
                let inner = self.alternatives()?;
                let [Word::Close, rest @ ..] = self.words else {
                    return Err("a parenthesis is not closed".into());
                };
                self.words = rest;
                self.depth -= 1;
                Ok(inner)
            }
            [Word::Bare(attribute), Word::Bare(operator), Word::Quoted(value), rest @ ..] => {
                self.words = rest;
                if !operator.eq_ignore_ascii_case("eq") {
                    return Err(format!("the operator {operator} is not supported"));
                }
                let attribute = match attribute.to_ascii_lowercase().as_str() {
                    "id" => Attribute::Id,
                    "username" => Attribute::UserName,
                    "origin" => Attribute::Origin,
                    "email" | "emails" | "emails.value" => Attribute::Email,
                    _ => return Err(format!("the attribute {attribute} is not supported")),
                };
                Ok(vec![vec![Comparison { attribute, value: value.clone() }]])
            }
            _ => Err("a comparison like userName eq \"name\" is expected".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is(attribute: Attribute, value: &str) -> Comparison {
        Comparison { attribute, value: value.into() }
    }

    #[test]
    fn the_clis_filters_are_read() {
        use Attribute::{Id, Origin, UserName};
        let filter = Filter::parse(r#"userName eq "U" and origin eq "uaa""#).unwrap();
        assert_eq!(filter.any_of, [vec![is(UserName, "U"), is(Origin, "uaa")]]);
        let filter = Filter::parse(r#"id eq "a" or id eq "b""#).unwrap();
        assert_eq!(filter.any_of, [vec![is(Id, "a")], vec![is(Id, "b")]]);
        let filter = Filter::parse(r#"(username Eq 'a' OR id eq "b") AND origin eq "x""#).unwrap();
        let both = [vec![is(UserName, "a"), is(Origin, "x")], vec![is(Id, "b"), is(Origin, "x")]];
        assert_eq!(filter.any_of, both);
        let filter = Filter::parse(r#"userName eq "a\"b\\c""#).unwrap();
        assert_eq!(filter.any_of, [vec![is(UserName, r#"a"b\c"#)]]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "",
            "id",
            "id eq",
            "id eq a",
            r#"id co "a""#,
            r#"phone eq "a""#,
            r#"id eq "a" or"#,
            r#"(id eq "a""#,
            r#"id eq "a" id eq "b""#,
            r#"id eq "a"#,
        ] {
            assert!(Filter::parse(text).is_err(), "{text}");
        }
        assert!(Filter::parse(&"(".repeat(100_000)).is_err());
        let factor = r#"(id eq "a" or id eq "b")"#;
        assert!(Filter::parse(&vec![factor; 40].join(" and ")).is_err());
    }

    proptest! {
        #[test]
        fn any_value_survives_quoting(value in ".*") {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            let filter = Filter::parse(&format!("userName eq \"{quoted}\"")).unwrap();
            prop_assert_eq!(&filter.any_of[0][0].value, &value);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            let _ = Filter::parse(&text);
        }
    }
}
