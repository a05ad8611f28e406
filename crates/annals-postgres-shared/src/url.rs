//! Reads the URL of a server, as libpq does, and leaves the parameters of a store to the store.

use annals_core::{
    Error, ErrorKind, Result,
    adapter::url::{Parameter, Parameters, check_authority},
};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use url::{ParseError, Url};

/// The parameters that sqlx reads, as libpq does. It would log any other with its value, and ignore
/// it.
const OF_LIBPQ: [&str; 13] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "statement-cache-capacity",
];

/// Reads a URL of one of these schemes: how to connect, and the parameters that are not those of
/// libpq.
///
/// # Errors
/// [`ErrorKind::InvalidInput`], which never shows the password.
pub fn read(url: &str, schemes: &[&str]) -> Result<(PgConnectOptions, Vec<Parameter>)> {
    let refused = |message: String| Error::new(ErrorKind::InvalidInput, message);
    let scheme = schemes.first().copied().unwrap_or_default();
    check_authority(url, &['/', '?', '#'])?;
    // The error of `url` does not quote the URL, which may hold a password.
    let mut url = Url::parse(url).map_err(|error| unreadable(url, scheme, error))?;
    if !schemes.contains(&url.scheme()) {
        return Err(refused(format!("the URL does not begin with `{scheme}:`")));
    }
    let parameters = Parameters::parse(url.query().unwrap_or_default())?;
    url.set_query(None);
    let (mut of_libpq, mut of_store) = (Vec::new(), Vec::new());
    for parameter in parameters {
        let is_libpqs = OF_LIBPQ.contains(&parameter.name());
        if is_libpqs { &mut of_libpq } else { &mut of_store }.push(parameter);
    }
    if !of_libpq.is_empty() {
        let pairs = of_libpq.iter().map(|parameter| (parameter.name(), parameter.value()));
        url.query_pairs_mut().extend_pairs(pairs);
    }
    let connect = PgConnectOptions::from_url(&url)
        .map_err(|error| {
            refused(format!("one of the parameters {} has an invalid value", names_of_libpq()))
                .with_source(error)
        })?
        // With debug logging on, sqlx would log every statement.
        .disable_statement_logging();
    Ok((connect, of_store))
}

fn unreadable(url: &str, scheme: &str, error: ParseError) -> Error {
    let host = url.split_once("//").map_or(url, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let message = if host.contains(',') {
        "the URL names several hosts; name one server, the primary".to_owned()
    } else {
        format!("the URL cannot be read: {error}; write `{scheme}://user:password@host/database`")
    };
    Error::new(ErrorKind::InvalidInput, message).with_source(error)
}

/// The names of the parameters of libpq, for an error.
pub fn names_of_libpq() -> String {
    OF_LIBPQ.map(|name| format!("`{name}`")).join(", ")
}
