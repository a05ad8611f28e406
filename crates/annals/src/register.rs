//! Backends of other crates.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, PoisonError, RwLock},
};

use annals_core::{Error, ErrorKind, Result, Store};
use async_trait::async_trait;

use crate::{
    Backend, OpenMode,
    scheme::{invalid, is_scheme},
};

/// Opens the stores of a backend that this crate does not know. [`register`] makes its URLs work.
#[async_trait]
pub trait Opener: Send + Sync + 'static {
    /// The backend's name, as in [`Capabilities::backend`](crate::Capabilities::backend).
    fn name(&self) -> &'static str;

    /// The schemes of the backend's URLs, in lower case and without the colon.
    fn schemes(&self) -> &'static [&'static str];

    /// Opens the store that a URL names. The scheme of the URL is in lower case.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] if there is no store at the URL and the mode is
    /// [`OpenMode::Existing`]; then nothing is created.
    async fn open(&self, url: &str, mode: OpenMode) -> Result<Arc<dyn Store>>;

    /// Reads a URL, and opens nothing. By default every URL passes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] for what cannot be read in the URL.
    fn check(&self, _url: &str) -> Result<()> {
        Ok(())
    }

    /// Whether the store is in the memory of this process, so that each call opens a new one.
    fn is_in_memory(&self, _url: &str) -> bool {
        false
    }

    /// The URL of another store in the same place, for the temporary stores of `annals conformance` and
    /// `annals bench`: see [`StoreUrl::sibling`](crate::StoreUrl::sibling).
    ///
    /// # Errors
    /// By default [`ErrorKind::Unsupported`]: then these two commands do not run on the backend.
    fn sibling(&self, _url: &str, _name: &str) -> Result<String> {
        let message = format!("the backend `{}` makes no temporary stores", self.name());
        Err(Error::new(ErrorKind::Unsupported, message))
    }

    /// Deletes a store whose URL [`sibling`](Opener::sibling) made, if it exists. All handles to it were
    /// dropped.
    async fn remove(&self, _url: &str) -> Result<()> {
        Ok(())
    }
}

/// A backend of another crate, which [`register`] made known.
#[derive(Clone, Copy)]
pub struct Registered(&'static dyn Opener);

impl Registered {
    /// What opens its stores.
    #[must_use]
    pub fn opener(self) -> &'static dyn Opener {
        self.0
    }
}

impl fmt::Debug for Registered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registered").field(&self.0.name()).finish()
    }
}

// No two backends have the same name.
impl PartialEq for Registered {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Registered {}

impl Hash for Registered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

static REGISTERED: RwLock<Vec<Registered>> = RwLock::new(Vec::new());

pub(crate) fn registered() -> Vec<Registered> {
    REGISTERED.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Makes the backend of another crate known to this process: to [`connect`](crate::connect) and
/// [`StoreUrl`](crate::StoreUrl), and so to the `main` of `annals-cli` and of `annals-gateway`. Call it before either.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] for a name or a scheme that another backend has, and for one that no URL
/// can have.
///
/// ```
/// # use std::sync::Arc;
/// use annals::{OpenMode, Opener, Result, Store};
///
/// struct Other;
///
/// #[async_trait::async_trait]
/// impl Opener for Other {
///     fn name(&self) -> &'static str {
///         "other"
///     }
///     fn schemes(&self) -> &'static [&'static str] {
///         &["other"]
///     }
///     async fn open(&self, url: &str, mode: OpenMode) -> Result<Arc<dyn Store>> {
///         # let _ = (url, mode);
///         # unimplemented!()
///         // Ok(Arc::new(OtherStore::open(url, mode).await?))
///     }
/// }
///
/// annals::register(Other)?;
/// assert_eq!(annals::Backend::of("other://shop")?.name(), "other");
/// // fn main() -> ExitCode { annals::register(Other)…; annals_cli::main() }
/// # Ok::<(), annals::Error>(())
/// ```
pub fn register(opener: impl Opener) -> Result<()> {
    let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
    let known = || {
        let registered = registered.iter().copied().map(Backend::Registered);
        Backend::ALL.iter().copied().chain(registered)
    };
    let name = opener.name();
    if name.is_empty() || known().any(|backend| backend.name() == name) {
        return Err(invalid(format!("another backend has the name {name:?}")));
    }
    for scheme in opener.schemes() {
        if !is_scheme(scheme) || scheme.to_ascii_lowercase() != *scheme {
            return Err(invalid(format!("{scheme:?} is no scheme in lower case")));
        }
        if let Some(backend) = known().find(|backend| backend.schemes().contains(scheme)) {
            let message = format!("the scheme `{scheme}:` belongs to the backend `{backend}`");
            return Err(invalid(message));
        }
    }
    // A backend is registered for as long as the process lives.
    registered.push(Registered(Box::leak(Box::new(opener))));
    Ok(())
}
