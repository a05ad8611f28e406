//! Users and passwords in URLs, wherever they stand: nothing of them is shown.

use crate::{Error, ErrorKind, Result};

/// Refuses a URL in which an `@` stands after the part that may hold a user and a password. That part
/// begins after `://`, and one of the characters `ends` ends it. Such a URL has a password with an
/// unescaped `/`, `?` or `#`, so that its rest would be taken for a host, a path or a parameter, and
/// be shown. Call this before anything of the URL is read.
///
/// ```
/// use annals_core::adapter::url::check_authority;
///
/// assert!(check_authority("postgres://shop:2024%3FSummer@host/db", &['/', '?', '#']).is_ok());
/// let error = check_authority("postgres://shop:2024?Summer@host/db", &['/', '?', '#']).unwrap_err();
/// assert!(!error.to_string().contains("Summer"));
/// ```
///
/// # Errors
/// [`ErrorKind::InvalidInput`], which repeats nothing of the URL.
pub fn check_authority(url: &str, ends: &[char]) -> Result<()> {
    let rest = url.split_once(':').map_or(url, |(_, rest)| rest);
    let rest = match rest.strip_prefix("//") {
        Some(rest) => rest.find(ends).and_then(|end| rest.get(end..)).unwrap_or_default(),
        None => rest,
    };
    if !rest.contains('@') {
        return Ok(());
    }
    let message = "the URL cannot be read: its last `@` does not end `//user:password`; in a user or \
                   a password write `%2F`, `%3F` and `%23` for `/`, `?` and `#`, and after the host \
                   write `%40` for `@`";
    Err(Error::new(ErrorKind::InvalidInput, message))
}

/// Whether a path looks like `user:password@host`, the beginning of a URL: whether a `:` or a `?`
/// stands before its last `@`. On Windows, the `:` of a drive does not count.
#[must_use]
pub fn has_credentials(path: &str) -> bool {
    let Some((before, _)) = path.rsplit_once('@') else { return false };
    let path = before.trim_start_matches('/');
    let drive = path.get(1..).filter(|rest| cfg!(windows) && rest.starts_with(":"));
    drive.and_then(|rest| rest.get(1..)).unwrap_or(before).contains([':', '?'])
}

/// A message about the arguments of a command, without the secrets that they may have: of each
/// argument that the message repeats, also in the form of `Debug`, it shows only what stands after the
/// last `@`.
///
/// ```
/// use annals_core::adapter::url::without_credentials;
///
/// let said = without_credentials("unexpected argument 'x://a:b@c'", ["--store=x", "x://a:b@c"]);
/// assert_eq!(said, "unexpected argument '…@c'");
/// ```
#[must_use]
pub fn without_credentials<T: AsRef<str>>(
    message: &str,
    arguments: impl IntoIterator<Item = T>,
) -> String {
    let mut message = message.to_owned();
    let mut replace = |text: &str, shown: &str| {
        message = message.replace(text, shown);
        message =
            message.replace(&text.escape_debug().to_string(), &shown.escape_debug().to_string());
    };
    for argument in arguments {
        let argument = argument.as_ref();
        let option = argument.split_once('=');
        // The value in `-ovalue`, and in `--option=value`. A longer text comes before its end.
        for text in [Some(argument), argument.get(2..), option.map(|(_, value)| value)] {
            if let Some((text, (_, shown))) =
                text.and_then(|text| Some((text, text.rsplit_once('@')?)))
            {
                replace(text, &format!("…@{shown}"));
            }
        }
        // No option has a `:` in its name. This is a URL with a `=`.
        if let Some((name, value)) = option
            && name.contains(':')
            && value.contains('@')
        {
            replace(name, "…");
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_at_sign_after_the_authority_is_refused_and_nothing_is_repeated() {
        const ENDS: &[char] = &['/', '?', '#'];
        for cut in ['/', '?', '#'] {
            for url in ["x://u:MARK{}MARK@h/d", "x://u:MA@RK{}MARK@h", "x://MARK{}MARK@h?a=1"] {
                let url = url.replace("{}", &cut.to_string());
                let error = check_authority(&url, ENDS).unwrap_err();
                assert!(!format!("{error} {error:?}").contains("MARK"), "{url}: {error:?}");
            }
        }
        for url in ["x:u:password@h", "x:/u:p@h", "u:p@h", "x://h/d?a=b@c", "x:///u:p@h"] {
            assert!(check_authority(url, ENDS).is_err(), "{url}");
        }
        for url in ["x://u:p@ss@h/d?a=b%40c", "x://u:p!$&'()*+,;=:[]\\^`{|}~\"<> p@h", "x:y", ""] {
            assert!(check_authority(url, ENDS).is_ok(), "{url}");
        }
    }

    #[test]
    fn paths_with_credentials_are_known() {
        for path in ["//root:pw@db/e.db", "root:p/w@db", "//root:p?w@db", "///root:pw@h", "pw?x@h"]
        {
            assert!(has_credentials(path), "{path}");
        }
        for path in ["a@b.db", "/var/lib/a@b.db", ":memory:", "a@b:c", "", "//a#b@c"] {
            assert!(!has_credentials(path), "{path}");
        }
    }

    #[test]
    fn arguments_are_repeated_without_credentials() {
        let arguments = [
            "-npg://a:secret \"x@h",
            "--limit=pg://a:secret@h",
            "pg://a:sec@ret@h/d",
            "--pg://a:sec=ret@h",
        ];
        for (message, due) in [
            ("invalid value 'pg://a:secret \"x@h' for '-n'", "invalid value '…@h' for '-n'"),
            ("invalid value 'pg://a:secret@h'", "invalid value '…@h'"),
            ("unexpected argument \"-npg://a:secret \\\"x@h\"", "unexpected argument \"…@h\""),
            ("pg://a:sec@ret@h/d, and pg://a:sec@ret@h/d", "…@h/d, and …@h/d"),
            ("invalid value 'pg://a:sec=ret@h' for '-n'", "invalid value '…@h' for '-n'"),
            ("unexpected argument '--pg://a:sec'", "unexpected argument '…'"),
            ("nothing of them, for '--limit'", "nothing of them, for '--limit'"),
        ] {
            assert_eq!(without_credentials(message, arguments), due);
        }
    }
}
