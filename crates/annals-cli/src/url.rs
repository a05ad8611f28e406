//! URLs of stores, as they may be shown.

/// The parameters that say which store it is, and nothing secret.
const SHOWN: &[&str] = &["namespace", "prefix", "region", "schema"];

/// A URL without credentials, and without parameters that may hold some.
pub(crate) fn shown(url: &str) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let is_file = ["sqlite:", "jsonl:", "cloudevents:"].iter().any(|s| address.starts_with(s));
    // A password may hold anything that should have been escaped.
    let address = match (address.split_once("://"), address.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) if !is_file => format!("{scheme}://{rest}"),
        (None, Some((_, rest))) if !is_file => rest.to_owned(),
        _ => address.to_owned(),
    };
    let is_shown = |pair: &&str| SHOWN.iter().any(|name| pair.split('=').next() == Some(*name));
    let pairs: Vec<&str> = query.split('&').filter(is_shown).collect();
    if pairs.is_empty() { address } else { format!("{address}?{}", pairs.join("&")) }
}

/// A URL with a parameter set, in place of the one of that name.
pub(crate) fn with_parameter(text: &str, name: &str, value: &str) -> String {
    let (base, query) = text.split_once('?').unwrap_or((text, ""));
    let own = format!("{name}=");
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with(&own));
    let pairs: Vec<String> = kept.map(str::to_owned).chain([format!("{name}={value}")]).collect();
    format!("{base}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_no_secret() {
        for (url, due) in [
            ("sqlite://shop.db", "sqlite://shop.db"),
            ("sqlite:///var/lib/a@b.db?synchronous=normal", "sqlite:///var/lib/a@b.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("memory:", "memory:"),
            (
                "postgres://shop:hunter2@db:5433/shop?schema=a&password=hunter2",
                "postgres://db:5433/shop?schema=a",
            ),
            ("postgres://shop:hun/ter2@db/shop", "postgres://db/shop"),
            ("dynamodb://k:hunter2@events?region=eu-west-1", "dynamodb://events?region=eu-west-1"),
            ("esdb://u:hunter2@a:1,b:2?tls=false", "esdb://a:1,b:2"),
            ("u:hunter2@db/shop", "db/shop"),
        ] {
            assert_eq!(shown(url), due);
        }
    }

    #[test]
    fn sets_a_parameter() {
        assert_eq!(with_parameter("postgres://h/d", "schema", "a"), "postgres://h/d?schema=a");
        let replaced = with_parameter("esdb://h?namespace=b&tls=false", "namespace", "a");
        assert_eq!(replaced, "esdb://h?tls=false&namespace=a");
    }
}
