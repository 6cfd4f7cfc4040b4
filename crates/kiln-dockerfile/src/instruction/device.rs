//! `RUN --device=…`: a device by its CDI name.

use kiln_report::Diagnostic;

use super::csv::{Field, csv_fields};
use super::mount::parse_bool;
use crate::parse::Word;
use crate::suggest;

/// A device that a step is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its CDI name, such as `vendor.com/class=name`, or a class.
    pub name: Word,
    /// Whether the step cannot do without.
    pub required: bool,
}

const KEYS: [&str; 2] = ["name", "required"];

impl Device {
    /// Reads `vendor.com/class=name,required`; what has no key of its own is the name.
    pub(super) fn read(flag: &Word) -> Result<Self, Diagnostic> {
        let fields = csv_fields(&flag.text).map_err(|error| {
            let span = flag.part(error.at, flag.text.len().min(error.at + 1));
            Diagnostic::error(span, format!("`--device` is not well formed: {}", error.reason))
        })?;
        let (mut name, mut required) = (None, false);
        for Field { text, start, end } in fields {
            let span = flag.part(start, end);
            let (key, value) = match text.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (text.to_ascii_lowercase(), None),
            };
            match (key.as_str(), value) {
                ("required", None) => required = true,
                ("required", Some(value)) => {
                    required = parse_bool(value).ok_or_else(|| {
                        Diagnostic::error(span, format!("`required` is `true` or `false`, not `{value}`"))
                    })?;
                }
                ("name", Some(value)) if name.is_none() => name = Some(Word { text: value.to_owned(), span }),
                ("name", Some(_)) => {
                    return Err(Diagnostic::error(span, "a device has one name").hint("use one `--device` for each"));
                }
                _ if name.is_none() => name = Some(Word { text, span }),
                _ => return Err(unknown(&key, &text, span)),
            }
        }
        match name.filter(|name| !name.text.is_empty()) {
            Some(name) => Ok(Self { name, required }),
            None => Err(Diagnostic::error(flag.span, "`--device` names no device")
                .hint("write `--device=vendor.com/class=name`")),
        }
    }
}

fn unknown(key: &str, text: &str, span: kiln_report::Span) -> Diagnostic {
    let error = Diagnostic::error(span, format!("a device has no option `{text}`"));
    match suggest::nearest(key, KEYS) {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")),
        None => error.hint("write the name, and `required` if the step cannot do without"),
    }
}

#[cfg(test)]
mod tests {
    use kiln_report::Span;

    use super::*;

    fn read(text: &str) -> Result<(String, bool), String> {
        let flag = Word { text: text.to_owned(), span: Span::new(0, text.len()) };
        Device::read(&flag)
            .map(|device| (device.name.text, device.required))
            .map_err(|d| format!("{} @{}", d.message, &text[d.span.range()]))
    }

    #[test]
    fn devices_are_read_by_name_class_and_wildcard() {
        for (text, name, required) in [
            ("vendor.com/class=dev", "vendor.com/class=dev", false),
            ("vendor.com/class=*", "vendor.com/class=*", false),
            ("vendor.com/class", "vendor.com/class", false),
            ("vendor.com/class=dev,required", "vendor.com/class=dev", true),
            ("required,name=vendor.com/class=dev", "vendor.com/class=dev", true),
            ("Name=x,REQUIRED=false", "x", false),
            ("\"a=b,c\",required=1", "a=b,c", true),
        ] {
            assert_eq!(read(text).unwrap(), (name.to_owned(), required), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_device_is_told_at_its_place() {
        for (text, wanted) in [
            ("", "`--device` names no device @"),
            ("required", "`--device` names no device @required"),
            ("a,name=b", "a device has one name @name=b"),
            ("a,b", "a device has no option `b` @b"),
            ("a,requird", "a device has no option `requird` @requird"),
            ("a,required=x", "`required` is `true` or `false`, not `x` @required=x"),
            ("a\"b", "`--device` is not well formed: a quote may stand only around a whole field @\""),
        ] {
            assert_eq!(read(text).unwrap_err(), wanted, "{text}");
        }
    }
}
