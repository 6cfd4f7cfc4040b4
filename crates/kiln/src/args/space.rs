//! What is said of space: amounts, and filters in buildx's words.

use std::time::Duration;

use kiln_engine::{Amount, Condition, Field, SpaceLimits, Test};
use kiln_report::{Failure, FailureKind};

use super::Environment;
use super::value::{Wrong, bytes, did_you_mean};

/// Bytes with a unit, or a share of the disk: `20GB`, `512MiB`, `10%`.
pub(crate) fn amount(text: &str) -> Result<Amount, Wrong> {
    let Some(percent) = text.strip_suffix('%') else { return bytes(text).map(Amount::Bytes) };
    match percent.parse::<u8>() {
        Ok(percent) if percent <= 100 => Ok(Amount::Percent(percent)),
        _ => Err(Wrong(format!("`{percent}` is no percentage: expected a whole number up to 100"))),
    }
}

/// What the filters of a command come to.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// What things must be.
    pub(crate) conditions: Vec<Condition>,
    /// How long they must not have been used.
    pub(crate) unused_for: Option<Duration>,
}

/// The words filters begin with.
const KEYS: [&str; 10] =
    ["id", "description", "type", "inuse", "mutable", "immutable", "shared", "private", "until", "unused-for"];

impl Filters {
    /// Reads `key`, `key=value`, `key!=value` and `key~=pattern`.
    pub(crate) fn parse(typed: &[String]) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in typed.iter().flat_map(|text| text.split(',')) {
            let wrong = |why: String| Failure::new(FailureKind::Usage, format!("`--filter {text}`: {why}"));
            filters.add(text).map_err(|Wrong(why)| wrong(why))?;
        }
        Ok(filters)
    }

    fn add(&mut self, text: &str) -> Result<(), Wrong> {
        let end = text.find(['=', '!', '~']).unwrap_or(text.len());
        let (key, test) = text.split_at(end);
        let flag = match key {
            "inuse" => Condition::InUse,
            "mutable" => Condition::Mutable,
            "immutable" => Condition::Immutable,
            "shared" => Condition::Shared,
            "private" => Condition::Private,
            "until" | "unused-for" => return self.age(test),
            "id" | "description" | "type" => return self.text(key, test),
            "parents" => return Err(Wrong("nothing has parents here: layers stand alone".into())),
            _ => return Err(Wrong(format!("nothing has a `{key}`{}", did_you_mean(key, KEYS)))),
        };
        if !matches!(test, "" | "=true" | "=1") {
            return Err(Wrong(format!("`{key}` takes no value")));
        }
        self.conditions.push(flag);
        Ok(())
    }

    fn text(&mut self, key: &str, test: &str) -> Result<(), Wrong> {
        let field = match key {
            "id" => Field::Id,
            "description" => Field::Description,
            _ => Field::Type,
        };
        let like = |pattern: &str| pattern.parse().map(Test::Like).map_err(|why| Wrong(format!("no pattern: {why}")));
        let test = if let Some(pattern) = test.strip_prefix("~=") {
            like(pattern)?
        } else if let Some(unwanted) = test.strip_prefix("!=") {
            Test::IsNot(unwanted.to_owned())
        } else {
            let wanted = test.strip_prefix("==").or_else(|| test.strip_prefix('='));
            match (wanted.unwrap_or_default(), field) {
                ("", _) => return Err(Wrong(format!("expected `{key}=…`, `{key}!=…` or `{key}~=…`"))),
                // As buildx has it: the beginning of an id will do.
                (id, Field::Id) => like(id)?,
                (wanted, _) => Test::Is(wanted.to_owned()),
            }
        };
        self.conditions.push(Condition::Text(field, test));
        Ok(())
    }

    fn age(&mut self, test: &str) -> Result<(), Wrong> {
        let text = test.strip_prefix('=').unwrap_or_default();
        let wrong = || Wrong("expected a duration, as in `until=24h`".to_owned());
        if self.unused_for.replace(duration(text).ok_or_else(wrong)?).is_some() {
            return Err(Wrong("an age was given already".to_owned()));
        }
        Ok(())
    }
}

/// A duration as Go writes it, `1h30m`; days, `7d`, are taken too.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 24.0 * 3600.0,
            _ => return None,
        };
        seconds += rest[..digits].parse::<f64>().ok()? * factor;
        rest = &rest[unit..];
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

/// How much builds may leave: `KILN_GC`, `KILN_GC_MAX_USED_SPACE`, `KILN_GC_RESERVED_SPACE`, `KILN_GC_MIN_FREE_SPACE`.
pub(crate) fn gc(environment: &Environment) -> Result<Option<SpaceLimits>, Failure> {
    let wrong = |name: &str, why: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Usage, format!("the variable `{name}` has no sensible value: {why}"))
    };
    match environment.text("KILN_GC") {
        Some("off" | "0" | "false") => return Ok(None),
        None | Some("on" | "1" | "true") => {}
        Some(_) => return Err(wrong("KILN_GC", &"expected `on` or `off`")),
    }
    let amount = |name| environment.text(name).map(|text| amount(text).map_err(|why| wrong(name, &why))).transpose();
    Ok(Some(SpaceLimits {
        reserved: amount("KILN_GC_RESERVED_SPACE")?,
        max_used: amount("KILN_GC_MAX_USED_SPACE")?,
        min_free: amount("KILN_GC_MIN_FREE_SPACE")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_bytes_or_shares() {
        assert_eq!(amount("20mb").unwrap(), Amount::Bytes(20 << 20));
        assert_eq!(amount("10%").unwrap(), Amount::Percent(10));
        for bad in ["101%", "x%", "-1%", "1.5%", "20x"] {
            assert!(amount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_go_s() {
        for (text, seconds) in [("24h", 86_400), ("1h30m", 5400), ("0s", 0), ("1.5h", 5400), ("7d", 604_800)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "24", "h", "1x", "-1h", "1e400h"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn filters_are_buildx_s() {
        let parse = |texts: &[&str]| Filters::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let filters = parse(&["until=48h", "type=regular,private", "description~=apt-get", "id!=x", "id=ab"]).unwrap();
        assert_eq!((filters.conditions.len(), filters.unused_for), (5, Some(Duration::from_secs(172_800))));
        for (text, why) in [
            ("until=yesterday", "expected a duration"),
            ("type", "expected `type=…`"),
            ("inuse=no", "takes no value"),
            ("tipe=regular", "did you mean `type`?"),
            ("description~=(", "no pattern"),
            ("parents=x", "layers stand alone"),
        ] {
            let failure = parse(&[text]).unwrap_err().to_string();
            assert!(failure.contains(why), "{failure}");
        }
    }

    #[test]
    fn the_environment_sets_limits_and_switches_them_off() {
        let gc = |pairs: &[(&str, &str)]| {
            let mut all = [("A", ""), ("B", "")];
            all[..pairs.len()].copy_from_slice(pairs);
            gc(&Environment::from(all))
        };
        assert_eq!(gc(&[]).unwrap(), Some(SpaceLimits::default()));
        assert_eq!(gc(&[("KILN_GC", "off")]).unwrap(), None);
        let limits = gc(&[("KILN_GC_MAX_USED_SPACE", "1g"), ("KILN_GC_MIN_FREE_SPACE", "5%")]).unwrap().unwrap();
        assert_eq!((limits.max_used, limits.min_free), (Some(Amount::Bytes(1 << 30)), Some(Amount::Percent(5))));
        assert!(gc(&[("KILN_GC_MAX_USED_SPACE", "much")]).unwrap_err().to_string().contains("KILN_GC_MAX_USED_SPACE"));
    }
}
