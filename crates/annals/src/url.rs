//! URLs of stores: which backend they name, how they are shown, and what stands beside them.

use std::fmt;

use annals_core::{Error, Result, adapter::url::has_credentials};

use crate::{
    backend::Backend,
    register::registered,
    scheme::{invalid, is_scheme},
};

/// The URL of a store, with a scheme that annals knows.
///
/// `Display` and `Debug` leave out the user, the password, and every parameter that may hold a
/// secret, so that the URL can be logged. [`as_str`](Self::as_str) is the whole URL.
///
/// ```
/// use annals::{Backend, StoreUrl};
///
/// let url = StoreUrl::parse("postgres://shop:hunter2@db/shop?schema=orders&password=hunter2")?;
/// assert_eq!(url.backend(), Backend::Postgres);
/// assert_eq!(url.to_string(), "postgres://db/shop?schema=orders");
/// # Ok::<(), annals::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    backend: Backend,
    /// The scheme in lower case; the rest as it was given.
    text: String,
}

/// The parameters that tell one store from another. None of them is secret.
const SHOWN: &[&str] = &["namespace", "prefix", "region", "schema"];

/// The parameters that allow or forbid to create the store itself, or to delete it. They say nothing
/// of a store beside it.
const OF_THIS_STORE: &[&str] = &["create", "migrate", "deletion_protection"];

impl Backend {
    /// Every backend of this workspace, and those that were [registered](crate::register).
    pub(crate) fn known() -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().chain(registered().into_iter().map(Self::Registered))
    }

    /// The backend that a URL names, whether or not this build has it. Only the scheme is read:
    /// [`StoreUrl::check`] reads the rest.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a URL without a scheme that
    /// annals knows. The error lists the known ones, and shows no password.
    pub fn of(url: &str) -> Result<Self> {
        StoreUrl::parse(url).map(|url| url.backend())
    }
}

impl StoreUrl {
    /// Reads the scheme of a URL. Schemes have no case.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a text without a scheme, and for a scheme that annals does
    /// not know. The error lists the known schemes, and shows no password.
    pub fn parse(url: &str) -> Result<Self> {
        let Some((scheme, rest)) = split_scheme(url) else { return Err(no_scheme(url)) };
        let scheme = scheme.to_ascii_lowercase();
        let is_its = |backend: &Backend| backend.schemes().contains(&scheme.as_str());
        match Backend::known().find(is_its) {
            Some(backend) => Ok(Self { backend, text: format!("{scheme}:{rest}") }),
            None => {
                // Without `//` this may be `user:password@host`.
                let is_scheme = rest.starts_with("//") || !rest.contains('@');
                let scheme = if is_scheme { format!("with `{scheme}:`") } else { "so".to_owned() };
                let known = known_schemes();
                Err(invalid(format!("annals knows no URLs that begin {scheme}, only {known}")))
            }
        }
    }

    /// The backend that the scheme names, whether or not this build has it.
    #[must_use]
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The whole URL, with its secrets: for [`connect`](crate::connect), and for the `from_url` of
    /// the backend's configuration.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the store is in the memory of this process, so that each `connect` makes a new one.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        let (address, _) = self.split_query();
        match self.backend {
            Backend::Memory => true,
            Backend::Sqlite => matches!(address, "sqlite::memory:" | "sqlite://:memory:"),
            Backend::Registered(registered) => registered.opener().is_in_memory(&self.text),
            _ => false,
        }
    }

    /// The URL of another store in the same place, for temporary stores: a file in the same
    /// directory (`shop-NAME.db`), a schema in the same database, a table in the same account
    /// (`shop.NAME`), a namespace on the same servers. All other parameters are kept, except those
    /// that forbid to create or to delete the store.
    ///
    /// `name` has small letters, digits and `_` only, which every backend takes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for another name, and for a store in memory, which has no place.
    pub fn sibling(&self, name: &str) -> Result<Self> {
        let plain = |c: char| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.is_empty() || !name.chars().all(plain) {
            return Err(invalid(format!("{name:?} is no name; use small letters, digits and `_`")));
        }
        let (address, parameters) = self.split_query();
        let (address, parameter) = match self.backend {
            _ if self.is_in_memory() => {
                return Err(invalid("there is no other store beside one in memory"));
            }
            Backend::Memory | Backend::Sqlite => (file_beside(address, name), None),
            Backend::DynamoDb => (format!("{}.{name}", address.trim_end_matches('/')), None),
            Backend::Postgres | Backend::Marten => (address.to_owned(), Some("schema")),
            Backend::EventStoreDb => (address.to_owned(), Some("namespace")),
            Backend::Registered(registered) => {
                return Self::parse(&registered.opener().sibling(&self.text, name)?);
            }
        };
        let is_kept = |pair: &&str| match (self.backend, name_of(pair)) {
            // It says what the tables of the other store are like.
            (Backend::Marten, "create") => true,
            (Backend::Marten, "own_schema") => false,
            (_, name) => !OF_THIS_STORE.contains(&name) && parameter != Some(name),
        };
        let kept = parameters.split('&').filter(is_kept).map(str::to_owned);
        let own = parameter.map(|parameter| format!("{parameter}={name}"));
        let parameters: Vec<_> = kept.chain(own).filter(|pair| !pair.is_empty()).collect();
        Ok(Self { backend: self.backend, text: join(&address, &parameters) })
    }

    fn split_query(&self) -> (&str, &str) {
        split_query(self.backend, &self.text)
    }
}

/// Without user, password, and parameters that may hold a secret.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = without_user(self.backend, &self.text);
        let (address, parameters) = split_query(self.backend, &url);
        let is_shown = |pair: &&str| SHOWN.contains(&name_of(pair));
        let shown: Vec<_> = parameters.split('&').filter(is_shown).collect();
        f.write_str(&join(address, &shown))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreUrl").field(&self.to_string()).finish()
    }
}

/// The URL without what stands before its last `@`: a password may hold anything that should have been
/// escaped.
fn without_user(backend: Backend, url: &str) -> String {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    let slashes = if rest.starts_with("//") { "//" } else { "" };
    let shown = match rest.rsplit_once('@') {
        // A path of SQLite may hold `@`.
        Some(_) if backend == Backend::Sqlite && !has_credentials(rest) => None,
        // The `@` may stand in the password, or in a parameter: then more secrets may follow.
        Some((before, _)) if before.contains(['?', '#']) => Some("…"),
        Some((_, shown)) => Some(shown),
        None => None,
    };
    let shown = shown.unwrap_or_else(|| rest.strip_prefix(slashes).unwrap_or(rest));
    format!("{scheme}:{slashes}{shown}")
}

/// `sqlite://dir/shop-NAME.db` for `sqlite://dir/shop.db`.
fn file_beside(address: &str, name: &str) -> String {
    let file = address.rfind(['/', ':']).map_or(0, |at| at + 1);
    match address.rfind('.').filter(|dot| *dot > file) {
        Some(dot) => {
            let (stem, extension) = address.split_at(dot);
            format!("{stem}-{name}{extension}")
        }
        None => format!("{address}-{name}"),
    }
}

/// The address and the parameters.
fn split_query(backend: Backend, url: &str) -> (&str, &str) {
    // Only in a path of SQLite does `#` stand for itself.
    let url = match url.split_once('#') {
        Some((before, _)) if backend != Backend::Sqlite => before,
        _ => url,
    };
    url.split_once('?').unwrap_or((url, ""))
}

fn name_of<'a>(pair: &&'a str) -> &'a str {
    pair.split('=').next().unwrap_or_default()
}

fn join<T: AsRef<str>>(address: &str, parameters: &[T]) -> String {
    let mut url = address.to_owned();
    for (nth, pair) in parameters.iter().enumerate() {
        url.push(if nth == 0 { '?' } else { '&' });
        url.push_str(pair.as_ref());
    }
    url
}

fn split_scheme(url: &str) -> Option<(&str, &str)> {
    url.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
}

fn no_scheme(url: &str) -> Error {
    // Only a plain path is repeated: any other text may hold a password.
    let plain = |c: char| c.is_alphanumeric() || "./_- ".contains(c);
    let path = if !url.is_empty() && url.chars().all(plain) { url } else { "shop.db" };
    let known = known_schemes();
    invalid(format!(
        "the URL of a store begins with its scheme: did you mean sqlite://{path}? (known are {known})"
    ))
}

fn known_schemes() -> String {
    let schemes = Backend::known().flat_map(Backend::schemes);
    schemes.map(|scheme| format!("`{scheme}:`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use annals_core::ErrorKind;

    use super::*;

    fn parsed(url: &str) -> StoreUrl {
        StoreUrl::parse(url).unwrap()
    }

    #[test]
    fn schemes_have_no_case_and_drives_are_none() {
        let url = parsed("SQLite://Shop.db");
        assert_eq!((url.backend(), url.as_str()), (Backend::Sqlite, "sqlite://Shop.db"));
        assert_eq!(Backend::of("esdb+Discover://h").unwrap(), Backend::EventStoreDb);
        for url in
            ["C:\\shop.db", "c:shop.db", ":memory:", "", "1x:y", "a b:c", "mysql://h/d", "u:p@h"]
        {
            assert!(StoreUrl::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        for (url, shown) in [
            ("sqlite://shop.db", "sqlite://shop.db"),
            ("sqlite:///var/lib/a@b.db?synchronous=normal", "sqlite:///var/lib/a@b.db"),
            ("sqlite://a@b.db", "sqlite://a@b.db"),
            ("sqlite://root:hunter2@db/shop.db", "sqlite://db/shop.db"),
            ("sqlite::memory:", "sqlite::memory:"),
            ("sqlite://a#b.db?prefix=x", "sqlite://a#b.db?prefix=x"),
            ("memory:", "memory:"),
            (
                "postgres://shop:hunter2@db:5433/shop?schema=a&password=hunter2",
                "postgres://db:5433/shop?schema=a",
            ),
            ("postgres://shop:hun/ter2@db/shop", "postgres://db/shop"),
            ("postgres://hunter2?hunter2@db/shop?schema=a", "postgres://…"),
            ("postgres://shop:a#b?schema=hunter2@db/shop", "postgres://…"),
            ("postgres://db/shop?user=a@b&password=hunter2", "postgres://…"),
            ("sqlite://root:hun/hunter2@db/shop.db", "sqlite://db/shop.db"),
            ("sqlite:root:hun?hunter2@db/shop.db", "sqlite:…"),
            ("memory:hunter2/hunter2@db", "memory:db"),
            ("esdb://u:hun#hunter2?hunter2@a:1", "esdb://…"),
            ("postgres:shop:hunter2@db/shop", "postgres:db/shop"),
            ("dynamodb://k:hunter2@events?region=eu-west-1", "dynamodb://events?region=eu-west-1"),
            ("esdb://u:hunter2@a:1,b:2?tls=false#hunter2", "esdb://a:1,b:2"),
        ] {
            assert_eq!(parsed(url).to_string(), shown);
            assert!(!format!("{:?}", parsed(url)).contains("hunter2"), "{url}");
        }
    }

    #[test]
    fn a_sibling_is_in_the_same_place() {
        for (url, due) in [
            ("sqlite://shop.db", "sqlite://shop-x_1.db"),
            ("sqlite:shop", "sqlite:shop-x_1"),
            ("sqlite:///var/lib.d/shop", "sqlite:///var/lib.d/shop-x_1"),
            (
                "sqlite:///var/lib/shop.v2.db?create=false&prefix=a",
                "sqlite:///var/lib/shop.v2-x_1.db?prefix=a",
            ),
            ("sqlite:.hidden", "sqlite:.hidden-x_1"),
            ("postgres://u:p@h/d", "postgres://u:p@h/d?schema=x_1"),
            (
                "postgres://h/d?schema=a&migrate=false&sslmode=disable",
                "postgres://h/d?sslmode=disable&schema=x_1",
            ),
            ("marten://h/d?schema=a&create=string", "marten://h/d?create=string&schema=x_1"),
            ("dynamodb://shop/?region=r&deletion_protection=true", "dynamodb://shop.x_1?region=r"),
            ("esdb://h?namespace=b&tls=false", "esdb://h?tls=false&namespace=x_1"),
        ] {
            assert_eq!(parsed(url).sibling("x_1").unwrap().as_str(), due);
        }
        for (url, name) in [
            ("memory:", "x"),
            ("sqlite::memory:?prefix=a", "x"),
            ("sqlite:a.db", "../x"),
            ("esdb://h", ""),
        ] {
            let error = parsed(url).sibling(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
        }
    }

    #[test]
    fn stores_in_memory_are_recognised() {
        for (url, is_in_memory) in [
            ("memory:", true),
            ("sqlite::memory:", true),
            ("sqlite://:memory:?prefix=a", true),
            ("sqlite://memory.db", false),
            ("postgres://h/:memory:", false),
        ] {
            assert_eq!(parsed(url).is_in_memory(), is_in_memory, "{url}");
        }
    }
}
