//! No error, `Debug` output or log line shows a password of a URL (contract, "Errors").

#![allow(clippy::unwrap_used)]

use std::{
    error::Error,
    fmt::{self, Write},
    sync::{Arc, Mutex},
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

const PASSWORD: &str = "hunter2";

/// Every log line of the process, at any level, with all its fields.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        writeln!(self.0.lock().unwrap(), "{field}={value:?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// All texts of an error and of its causes.
fn all_of(error: &annals::Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        write!(text, " {error} {error:?}").unwrap();
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn no_password_is_shown() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).unwrap();
    tracing::trace!(url = "memory:", "this line proves that the log is recorded");
    for url in [
        "mysql://root:hunter2@db/shop",
        "//root:hunter2@db/shop",
        "root:hunter2@db/shop",
        "my_user:hunter2@db/shop",
        "postgres//shop:hunter2@db/shop",
        "postgres://shop:hunter2@127.0.0.1:1/shop",
        "postgresql://127.0.0.1:1/shop?user=shop&password=hunter2",
        "postgres://shop:hunter2@127.0.0.1:1/shop?sslpassword=hunter2",
        "postgres://shop:hunter2@127.0.0.1:port/shop",
        "dynamodb://key:hunter2@127.0.0.1:1/events",
        "dynamodb://events?secret=hunter2",
        "dynamodb://events?endpoint=http://key:hunter2@127.0.0.1:1",
        "esdb://admin:hunter2@127.0.0.1:1",
        "esdb+discover://admin:hunter2@127.0.0.1:1",
        "kurrentdb://admin:hunter2@127.0.0.1:1?tls=hunter2",
        "memory://root:hunter2@db",
        "memory:?password=hunter2",
        "sqlite://root:hunter2@db/shop.db",
        "sqlite://shop.db?password=hunter2",
        "sqlite://shop.db?key=hunter2&mode=ro",
    ] {
        for mode in [annals::OpenMode::Create, annals::OpenMode::Existing] {
            let error = annals::connect_with(url, mode).await.expect_err(url);
            let said = all_of(&error);
            assert!(!said.contains(PASSWORD), "{url}: {said}");
        }
        if let Ok(url) = annals::StoreUrl::parse(url) {
            let said = format!("{url} {url:?} {:?}", url.check());
            assert!(!said.contains(PASSWORD), "{url}: {said}");
        }
    }
    let logged = log.0.lock().unwrap();
    assert!(logged.contains("memory:") && !logged.contains(PASSWORD), "{logged}");
}

/// Every character that a password may have and a URL may not: the rest of the password is then taken
/// for something else.
#[test]
fn nothing_before_the_last_at_sign_is_shown() {
    const ODD: &str = "/?#:@[]%&=+ \\\"'<>^`{|};,!$*()~\n\tö";
    const SCHEMES: [&str; 9] = [
        "sqlite",
        "postgres",
        "postgresql",
        "dynamodb",
        "esdb",
        "esdb+discover",
        "kurrentdb",
        "memory",
        "mysql",
    ];
    const URLS: [&str; 9] = [
        "{scheme}://shop:{secret}@db/shop",
        "{scheme}://shop:{secret}@db:1/shop?schema=a",
        "{scheme}://{secret}:x@db",
        "{scheme}://shop:x=y{secret}&z@db/shop#a",
        "{scheme}:shop:{secret}@db/shop",
        "{scheme}:///shop:{secret}@db/shop",
        "{scheme}//shop:{secret}@db/shop",
        "//shop:{secret}@db/shop",
        "shop:{secret}@db/shop",
    ];
    for odd in ODD.chars() {
        for cut in [format!("{odd}"), format!("{odd}{odd}x="), format!("1{odd}a=")] {
            for (scheme, url) in SCHEMES.iter().flat_map(|s| URLS.iter().map(move |url| (s, url))) {
                let secret = format!("{PASSWORD}{cut}{PASSWORD}");
                let url = url.replace("{scheme}", scheme).replace("{secret}", &secret);
                let said = match annals::StoreUrl::parse(&url) {
                    Err(error) => all_of(&error),
                    Ok(parsed) => {
                        let said = parsed.check().err().map(|error| all_of(&error));
                        format!("{parsed} {parsed:?} {}", said.unwrap_or_default())
                    }
                };
                assert!(!said.contains(PASSWORD), "{url}: {said}");
            }
        }
    }
}
