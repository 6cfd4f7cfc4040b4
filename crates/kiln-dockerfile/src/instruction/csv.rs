//! Comma-separated fields with quotes, as flags hold them.

/// A field of a comma-separated text, quotes undone, and its range with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) text: String,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Says where a comma-separated text is not well formed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FieldError {
    pub(super) at: usize,
    pub(super) reason: &'static str,
}

/// Splits at commas outside of double quotes; `""` within quotes is a quote.
pub(crate) fn csv_fields(text: &str) -> Result<Vec<Field>, FieldError> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &text[at..];
        let (field, length) = if rest.starts_with('"') { quoted_field(rest, at)? } else { bare_field(rest, at)? };
        fields.push(Field { text: field, start: at, end: at + length });
        at += length;
        if at == text.len() {
            return Ok(fields);
        }
        at += 1;
    }
}

const QUOTE_WITHIN: &str = "a quote may stand only around a whole field";

fn bare_field(rest: &str, at: usize) -> Result<(String, usize), FieldError> {
    let field = rest.split(',').next().unwrap_or(rest);
    match field.find('"') {
        Some(quote) => Err(FieldError { at: at + quote, reason: QUOTE_WITHIN }),
        None => Ok((field.to_owned(), field.len())),
    }
}

fn quoted_field(rest: &str, at: usize) -> Result<(String, usize), FieldError> {
    let mut field = String::new();
    let mut end = 1;
    loop {
        let Some(plain) = rest[end..].find('"') else {
            return Err(FieldError { at, reason: "the quote is never closed" });
        };
        field.push_str(&rest[end..end + plain]);
        end += plain + 1;
        match rest.as_bytes().get(end) {
            None | Some(b',') => return Ok((field, end)),
            Some(b'"') => {
                field.push('"');
                end += 1;
            }
            Some(_) => return Err(FieldError { at: at + end - 1, reason: QUOTE_WITHIN }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_end_at_commas_outside_of_quotes() {
        let texts = |text: &str| csv_fields(text).map(|fields| fields.into_iter().map(|f| f.text).collect::<Vec<_>>());
        assert_eq!(texts("a=b,c").unwrap(), ["a=b", "c"]);
        assert_eq!(texts("\"a,b\",\"c\"\"d\",").unwrap(), ["a,b", "c\"d", ""]);
        assert_eq!(texts("").unwrap(), [""]);
        for (text, at) in [("a\"b", 1), ("x,\"a", 2), ("\"a\"b", 2)] {
            assert_eq!(csv_fields(text).unwrap_err().at, at, "{text}");
        }
    }

    #[test]
    fn fields_know_their_range_with_quotes() {
        let fields = csv_fields("a,\"b\",c").unwrap();
        let ranges: Vec<_> = fields.iter().map(|f| (f.start, f.end)).collect();
        assert_eq!(ranges, [(0, 1), (2, 5), (6, 7)]);
    }
}
