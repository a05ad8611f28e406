//! `dynamodb:` URLs.

use std::{str::FromStr, time::Duration};

use annals_core::{Error, ErrorKind, Result};
use url::Url;

use crate::config::DynamoDbConfig;

const PARAMETERS: &str = "`region`, `endpoint`, `profile`, `order`, `stripes`, `create`, \
    `point_in_time_recovery`, `deletion_protection`, `writers`, `snapshot_ttl`, `poll_interval`, \
    `close_after`, `request_timeout` and `retry_for`";

pub(crate) fn parse(text: &str) -> Result<DynamoDbConfig> {
    let url = Url::parse(text).map_err(|error| {
        // `url` quotes nothing of what it reads.
        let message = "the URL cannot be read; it is like `dynamodb://table?region=eu-west-1`";
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })?;
    if url.scheme() != "dynamodb" {
        return invalid("the URL does not begin with `dynamodb:`".to_owned());
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.port().is_some() || !matches!(url.path(), "" | "/") {
        // Not repeated, since it may be a secret.
        let message = "the URL has more than the name of a table; it is like \
                       `dynamodb://table?region=eu-west-1`, and credentials are those of the \
                       environment, a profile, or a role";
        return invalid(message.to_owned());
    }
    let Some(table) = url.host_str() else {
        return invalid("the URL has no table; use `dynamodb://table`".to_owned());
    };
    let mut config = DynamoDbConfig::new(table);
    let mut seen = Vec::new();
    for (name, value) in url.query_pairs() {
        if seen.contains(&name) {
            return invalid(format!("the parameter `{name}` is given twice"));
        }
        set(&mut config, &name, &value)?;
        seen.push(name);
    }
    config.options.check(&config.table)?;
    Ok(config)
}

fn set(config: &mut DynamoDbConfig, name: &str, value: &str) -> Result<()> {
    const BOOL: &str = "`true` or `false`";
    let some = Some(value.to_owned()).filter(|value| !value.is_empty());
    let options = &mut config.options;
    match name {
        "region" => config.region = some,
        "endpoint" => {
            let endpoint = Url::parse(value).ok();
            let plain = |url: &Url| url.username().is_empty() && url.password().is_none();
            let http = |url: &Url| matches!(url.scheme(), "http" | "https");
            if !endpoint.is_some_and(|url| http(&url) && plain(&url)) {
                let message = "`endpoint` is no URL of a server; use one like \
                               `http://localhost:8000`, without user and password";
                return invalid(message.to_owned());
            }
            config.endpoint = some;
        }
        "profile" => config.profile = some,
        "order" => match value {
            "on" => options.order = Some(true),
            "off" => options.order = Some(false),
            _ => return invalid(format!("`order` is {value:?}; use `on` or `off`")),
        },
        "stripes" => options.stripes = Some(number(name, value, "a number from 1 to 64")?),
        "create" => options.create = number(name, value, BOOL)?,
        "point_in_time_recovery" => options.point_in_time_recovery = number(name, value, BOOL)?,
        "deletion_protection" => options.deletion_protection = number(name, value, BOOL)?,
        "writers" => options.writers = number(name, value, "a number from 1 to 64")?,
        "snapshot_ttl" => {
            let seconds = number(name, value, "a number of seconds")?;
            options.snapshot_ttl = Some(Duration::from_secs(seconds));
        }
        "poll_interval" => options.poll_interval = milliseconds(name, value)?,
        "close_after" => options.close_after = milliseconds(name, value)?,
        "request_timeout" => options.request_timeout = milliseconds(name, value)?,
        "retry_for" => options.retry_for = milliseconds(name, value)?,
        _ => return invalid(format!("there is no parameter `{name}`; there are {PARAMETERS}")),
    }
    Ok(())
}

fn milliseconds(name: &str, value: &str) -> Result<Duration> {
    number(name, value, "a number of milliseconds").map(Duration::from_millis)
}

fn number<T: FromStr>(name: &str, value: &str, what: &str) -> Result<T> {
    value.parse().or_else(|_| invalid(format!("`{name}` is {value:?}; use {what}")))
}

fn invalid<T>(message: String) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DynamoDbOptions;

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            "dynamodb://Shop_Events-1.x?region=eu-west-1&endpoint=http%3A%2F%2Flocalhost%3A8000&profile=shop\
             &order=on&stripes=8&create=false&point_in_time_recovery=true&deletion_protection=true\
             &writers=2&snapshot_ttl=60&poll_interval=50&close_after=60&request_timeout=70&retry_for=0",
        )
        .unwrap();
        let options = DynamoDbOptions::default()
            .with_order(true)
            .with_stripes(8)
            .with_create(false)
            .with_point_in_time_recovery(true)
            .with_deletion_protection(true)
            .with_writers(2)
            .with_snapshot_ttl(Duration::from_secs(60))
            .with_poll_interval(Duration::from_millis(50))
            .with_close_after(Duration::from_millis(60))
            .with_request_timeout(Duration::from_millis(70))
            .with_retry_for(Duration::ZERO);
        let wanted = DynamoDbConfig::new("Shop_Events-1.x")
            .with_region("eu-west-1")
            .with_endpoint("http://localhost:8000")
            .with_profile("shop")
            .with_options(options);
        assert_eq!(config, wanted);
        let plain = parse("dynamodb://events?endpoint=http://localhost:8000").unwrap();
        assert_eq!(plain, DynamoDbConfig::new("events").with_endpoint("http://localhost:8000"));
    }

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        for (url, says) in [
            ("postgres://x", "does not begin with `dynamodb:`"),
            ("dynamodb:", "no table"),
            ("dynamodb://ab", "3 to 255"),
            ("dynamodb://a%20b", "3 to 255"),
            ("dynamodb://key:hunter2@events", "credentials are those"),
            ("dynamodb://events:8000", "more than the name"),
            ("dynamodb://events/hunter2", "more than the name"),
            ("dynamodb://events?regoin=x", "no parameter `regoin`; there are `region`"),
            ("dynamodb://events?region=a&region=b", "twice"),
            ("dynamodb://events?order=yes", "`on` or `off`"),
            ("dynamodb://events?stripes=65", "1 to 64"),
            ("dynamodb://events?stripes=0", "1 to 64"),
            ("dynamodb://events?order=off&stripes=2", "there is none"),
            ("dynamodb://events?writers=0", "1 to 64"),
            ("dynamodb://events?create=1", "`true` or `false`"),
            ("dynamodb://events?snapshot_ttl=0", "less than a second"),
            ("dynamodb://events?poll_interval=0", "1 millisecond"),
            ("dynamodb://events?close_after=soon", "milliseconds"),
            ("dynamodb://events?endpoint=localhost:8000", "`http://localhost:8000`"),
            ("dynamodb://events?endpoint=http://k:hunter2@h", "without user"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
