//! Whether a store that is missing is created.

/// What [`connect_with`](crate::connect_with) does if there is no store at the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpenMode {
    /// Creates the store, unless the URL forbids that by `create=false` or `migrate=false`. An older
    /// schema is migrated.
    Create,
    /// Fails, and creates no file, table or schema. An older schema is refused, too.
    Existing,
}
