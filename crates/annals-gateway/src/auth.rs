//! Basic authentication: which callers the gateway lets in.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;
use tonic::{Request, Status, metadata::MetadataMap, service::Interceptor};

use crate::status::unauthenticated;

/// The only user that the gateway lets in, as `user:password`. `None` lets in everybody.
#[derive(Clone, Default)]
pub(crate) struct Auth(Option<String>);

impl Auth {
    pub(crate) fn new(user: &str, password: &str) -> Self {
        Self(Some(format!("{user}:{password}")))
    }

    pub(crate) fn check(&self, headers: &MetadataMap) -> Result<(), Status> {
        let Some(expected) = &self.0 else { return Ok(()) };
        // Compare in constant time: the time must not tell how much of the password was right.
        match credentials(headers) {
            Some(given) if bool::from(given.as_slice().ct_eq(expected.as_bytes())) => Ok(()),
            _ => Err(unauthenticated()),
        }
    }
}

/// The user and the password that a call carries, with a colon between them.
fn credentials(headers: &MetadataMap) -> Option<Vec<u8>> {
    let (scheme, encoded) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(encoded.trim()).ok())?
}

/// The user that a call carries.
pub(crate) fn user(headers: &MetadataMap) -> Option<String> {
    let credentials = credentials(headers)?;
    let user = credentials.split(|byte| *byte == b':').next()?;
    String::from_utf8(user.to_vec()).ok()
}

impl Interceptor for Auth {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.check(request.metadata())?;
        Ok(request)
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Auth(one user)" } else { "Auth(everybody)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_password_is_accepted() {
        let auth = Auth::new("admin", "a:b");
        let check = |value: Option<&str>| {
            let mut headers = MetadataMap::new();
            if let Some(value) = value {
                headers.insert("authorization", value.parse().unwrap());
            }
            auth.check(&headers).is_ok()
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(check(Some(&basic("admin:a:b"))));
        for wrong in [basic("admin:a"), basic("admin:a:b:"), basic(""), "Bearer x".to_owned()] {
            assert!(!check(Some(&wrong)), "{wrong}");
        }
        assert!(!check(None) && !check(Some("Basic")) && !check(Some("Basic %")));
        assert!(Auth::default().check(&MetadataMap::new()).is_ok());
        assert!(!format!("{auth:?}").contains("a:b"));
    }
}
