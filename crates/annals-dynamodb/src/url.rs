//! `dynamodb:` URLs.

use annals_core::{
    Error, ErrorKind, Result,
    adapter::url::{Parameter, Parameters},
};
use url::Url;

use crate::config::DynamoDbConfig;

const PARAMETERS: &str = "`region`, `endpoint`, `profile`, `order`, `stripes`, `create`, \
    `point_in_time_recovery`, `deletion_protection`, `writers`, `snapshot_ttl`, `poll_interval`, \
    `close_after`, `request_timeout` and `retry_for`";

impl DynamoDbConfig {
    /// Reads a URL: `dynamodb://table?region=eu-west-1`. The parameters are optional, and have the
    /// names of the fields of [`DynamoDbConfig`] and of
    /// [`DynamoDbOptions`](crate::DynamoDbOptions):
    ///
    /// * `region`, `endpoint`, `profile`;
    /// * `order`: `on` or `off`;
    /// * `create`, `point_in_time_recovery`, `deletion_protection`: `true` or `false`;
    /// * `stripes`, `writers`: numbers;
    /// * `snapshot_ttl`: `30d`, `12h`, or a number of seconds;
    /// * `poll_interval`, `close_after`, `request_timeout`, `retry_for`: `500ms`, `10s`, `2m`, or a
    ///   number of milliseconds.
    ///
    /// A URL has no credentials: the SDK's default chain finds them.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], with the part of the URL that is wrong and what it could be.
    pub fn from_url(url: &str) -> Result<Self> {
        parse(url)
    }
}

fn parse(text: &str) -> Result<DynamoDbConfig> {
    if text.contains('@') {
        // Do not quote the URL: what stands before the `@` may be a secret.
        return invalid(
            "neither the URL nor its `endpoint` has an `@`; use one like \
             `dynamodb://table?region=eu-west-1`, without user and password. The credentials are \
             those of the environment, a profile or a role",
        );
    }
    let url = Url::parse(text).map_err(|error| {
        // Errors of the crate `url` do not quote the URL, which may have a secret.
        let message = "the URL cannot be parsed; use one like `dynamodb://table?region=eu-west-1`";
        Error::new(ErrorKind::InvalidInput, message).with_source(error)
    })?;
    if url.scheme() != "dynamodb" {
        return invalid("the URL does not begin with `dynamodb:`");
    }
    let has_user = !url.username().is_empty() || url.password().is_some();
    if has_user || url.port().is_some() || !matches!(url.path(), "" | "/") {
        // Do not quote the URL: the surplus part may be a secret.
        return invalid(
            "before its parameters the URL has more than the name of the table; use one like \
             `dynamodb://table?region=eu-west-1`. The credentials are those of the environment, a \
             profile or a role",
        );
    }
    let Some(table) = url.host_str() else {
        return invalid("the URL has no table; use one like `dynamodb://table`");
    };
    let mut config = DynamoDbConfig::new(table);
    for parameter in Parameters::parse(url.query().unwrap_or_default())? {
        set(&mut config, &parameter)?;
    }
    config.options.check(&config.table)?;
    Ok(config)
}

fn set(config: &mut DynamoDbConfig, parameter: &Parameter) -> Result<()> {
    let text = || Some(parameter.value().to_owned()).filter(|value| !value.is_empty());
    let options = &mut config.options;
    match parameter.name() {
        "region" => config.region = text(),
        "endpoint" => {
            if !is_endpoint(parameter.value()) {
                return invalid(
                    "`endpoint` is not the URL of a server; use one like `http://localhost:8000`, \
                     without user and password",
                );
            }
            config.endpoint = text();
        }
        "profile" => config.profile = text(),
        "order" => options.order = Some(parameter.one_of([("on", true), ("off", false)])?),
        "stripes" => options.stripes = Some(parameter.parsed("a number from 1 to 64")?),
        "create" => options.create = parameter.flag()?,
        "point_in_time_recovery" => options.point_in_time_recovery = parameter.flag()?,
        "deletion_protection" => options.deletion_protection = parameter.flag()?,
        "writers" => options.writers = parameter.parsed("a number from 1 to 64")?,
        "snapshot_ttl" => {
            options.snapshot_ttl = Some(parameter.seconds()?);
        }
        "poll_interval" => options.poll_interval = parameter.milliseconds()?,
        "close_after" => options.close_after = parameter.milliseconds()?,
        "request_timeout" => options.request_timeout = parameter.milliseconds()?,
        "retry_for" => options.retry_for = parameter.milliseconds()?,
        _ => return Err(parameter.unknown(PARAMETERS)),
    }
    Ok(())
}

/// Whether this is the URL of an HTTP server, without credentials.
fn is_endpoint(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
    })
}

fn invalid<T>(message: &'static str) -> Result<T> {
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::DynamoDbOptions;

    #[test]
    fn everything_can_be_set() {
        let config = parse(
            "dynamodb://Shop_Events-1.x?region=eu-west-1&endpoint=http%3A%2F%2Flocalhost%3A8000&profile=shop\
             &order=on&stripes=8&create=false&point_in_time_recovery=true&deletion_protection=true\
             &writers=2&snapshot_ttl=1m&poll_interval=50&close_after=60ms&request_timeout=70&retry_for=0",
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
            ("dynamodb://events?hunter2@events", "credentials are those"),
            ("dynamodb://key/hunter2@events", "credentials are those"),
            ("dynamodb://events?endpoint=http://k%3Ahunter2%40h", "without user"),
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
