//! The options of a store, and its URL.

use std::{collections::BTreeMap, fmt, time::Duration};

use annals_core::{Error, ErrorKind, Result, adapter::url::Parameter};
use annals_postgres_shared::{
    sql::check_schema,
    url::{names_of_libpq, read},
};
use sqlx::postgres::PgConnectOptions;

use crate::digest::digest;

/// The tenant of all rows in a database without tenants.
pub(crate) const DEFAULT_TENANT: &str = "*DEFAULT*";

/// How the .NET program appends: `StoreOptions.Events.AppendMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendMode {
    /// As the database shows it. It cannot tell `Quick` from `Rich`: then the mode has to be given.
    #[default]
    Auto,
    /// `Quick` or `QuickWithServerTimestamps`.
    Quick,
    /// `Rich`. Reads of all and subscriptions to more than one stream need
    /// [`MartenOptions::gap_wait`].
    Rich,
}

/// How the data of the events that annals writes is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Payloads {
    /// As `jsonb` in Marten's table, and byte for byte beside it.
    #[default]
    Exact,
    /// In Marten's table only. What `jsonb` changes (the order of keys, the text of numbers) is changed,
    /// and what it refuses is refused. Metadata has to fit into the columns that the .NET program has
    /// switched on.
    Jsonb,
}

/// What stands in `mt_streams.type` of a stream that annals begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamType {
    /// The category of the stream.
    #[default]
    Category,
    /// Nothing.
    None,
}

/// The layout of tables to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Create {
    /// For `StreamIdentity.AsGuid`.
    Guid,
    /// For `StreamIdentity.AsString`.
    String,
}

/// The options of a store, apart from its connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MartenOptions {
    /// The schema of Marten's event tables (`Events.DatabaseSchemaName`); `public` unless set.
    pub schema: String,
    /// The schema of annals' own tables beside them; `annals_` and the other schema unless set, and
    /// with a tenant also `_` and the tenant, or its digest. A store has one for itself.
    pub own_schema: Option<String>,
    /// The tenant whose events the store has, in a database with several.
    pub tenant: Option<String>,
    /// How the .NET program appends.
    pub mode: AppendMode,
    /// How long a program in mode `Rich` may take from taking numbers until its transaction begins, which
    /// nothing in the database shows. A reader of all streams waits at each missing number for so long,
    /// and then for the transactions that are under way. If an event comes later, subscriptions that have
    /// passed its number end with an error, as long as this store is open and for ten minutes. Unset, such
    /// reads and subscriptions are refused in mode `Rich`.
    pub gap_wait: Option<Duration>,
    /// Whether streams whose id is no Guid are taken in a database whose ids are Guids; `false`
    /// unless set. Such a stream has a Guid that is made of its name, and its name is kept beside
    /// Marten's tables.
    pub named: bool,
    /// What stands in `mt_streams.type` of a stream that annals begins.
    pub stream_type: StreamType,
    /// The .NET types of event types, as in `Shop.OrderPlaced, Shop`, by the event type.
    pub dotnet_types: BTreeMap<String, String>,
    /// Whether to refuse events whose .NET type is not known; `false` unless set: then they are written
    /// without one.
    pub refuse_unknown_types: bool,
    /// How the data of new events is kept.
    pub payloads: Payloads,
    /// Whether streams can be truncated, deleted and tombstoned; `true` unless set.
    pub removal: bool,
    /// Whether the store only reads, and creates nothing in the database, not even annals' own schema:
    /// for a role that may only read. Then it has no snapshots, checkpoints and leases. `false` unless
    /// set.
    pub read_only: bool,
    /// Whether archived events are read like others, as for a copy of all that is there; `false` unless
    /// set. Only with `read_only`.
    pub archived: bool,
    /// Which of Marten's tables to create if they are missing.
    pub create: Option<Create>,
    /// The most appends at the same time, 1 to 64; 8 unless set.
    pub writers: usize,
    /// How often subscribers look for new events without being told; every second unless set.
    pub poll_interval: Duration,
    /// How often to ask whether a .NET program has written, which does not notify unless it is told
    /// to; every 50 milliseconds unless set.
    pub look_interval: Duration,
    /// How long to wait for the server's answer to one request; 60 seconds unless set.
    pub request_timeout: Duration,
    /// Whether to create and migrate annals' own schema; `true` unless set.
    pub migrate: bool,
}

impl Default for MartenOptions {
    fn default() -> Self {
        Self {
            schema: "public".to_owned(),
            own_schema: None,
            tenant: None,
            mode: AppendMode::Auto,
            gap_wait: None,
            named: false,
            stream_type: StreamType::Category,
            dotnet_types: BTreeMap::new(),
            refuse_unknown_types: false,
            payloads: Payloads::Exact,
            removal: true,
            read_only: false,
            archived: false,
            create: None,
            writers: 8,
            poll_interval: Duration::from_secs(1),
            look_interval: Duration::from_millis(50),
            request_timeout: Duration::from_secs(60),
            migrate: true,
        }
    }
}

impl MartenOptions {
    /// The tenant of the store's rows.
    pub(crate) fn tenant(&self) -> &str {
        self.tenant.as_deref().unwrap_or(DEFAULT_TENANT)
    }

    /// The schema of annals' own tables, after [`resolve`](Self::resolve).
    pub(crate) fn own_schema(&self) -> &str {
        self.own_schema.as_deref().unwrap_or_default()
    }

    /// Fills in what follows from other options, and refuses values that cannot work.
    pub(crate) fn resolve(&mut self) -> Result<()> {
        check_schema("schema", &self.schema)?;
        let own = self.own_schema.take().unwrap_or_else(|| {
            let own = match &self.tenant {
                None => format!("annals_{}", self.schema),
                Some(tenant) => format!("annals_{}_{tenant}", self.schema),
            };
            // Two names that begin alike must not become one.
            if check_schema("own_schema", &own).is_ok() {
                own
            } else {
                format!("annals_{}", digest(&own))
            }
        });
        check_schema("own_schema", &own)?;
        let refused = |message: String| Err(Error::new(ErrorKind::InvalidInput, message));
        if own == self.schema {
            return refused(
                "`own_schema` is that of Marten; annals needs one of its own".to_owned(),
            );
        }
        self.own_schema = Some(own);
        if !(1..=64).contains(&self.writers) {
            return refused(format!("`writers` is {}; use a number from 1 to 64", self.writers));
        }
        if self.archived && !self.read_only {
            return refused(
                "`archived=include` is for reading: a stream that the .NET program has archived takes \
                 no events; add `read_only=true`"
                    .to_owned(),
            );
        }
        if self.create.is_some() && self.read_only {
            return refused("`create` makes tables, and `read_only` forbids it".to_owned());
        }
        let times = [
            ("gap_wait", self.gap_wait.unwrap_or(self.poll_interval)),
            ("poll_interval", self.poll_interval),
            ("look_interval", self.look_interval),
            ("request_timeout", self.request_timeout),
        ];
        match times.iter().find(|(_, time)| time.is_zero()) {
            Some((name, _)) => refused(format!("`{name}` is 0; use 1 millisecond or more")),
            None => Ok(()),
        }
    }
}

/// The error for reads of all beside a program in mode `Rich`, unless [`MartenOptions::gap_wait`] is set.
pub(crate) fn without_order() -> Error {
    let message = "beside a .NET program that appends in mode `Rich`, nothing shows that an event will \
                   still come at a missing number, so that a reader of all streams would skip events; add \
                   `gap_wait=10s` to the URL if each of the program's transactions begins within ten seconds \
                   of taking its numbers, or have the program append in mode `Quick`";
    Error::new(ErrorKind::Unsupported, message)
}

/// The options of a store, and how to reach its server.
#[derive(Clone)]
#[non_exhaustive]
pub struct MartenConfig {
    /// The server, the database, the credentials, TLS.
    pub connect: PgConnectOptions,
    /// The other options of the store.
    pub options: MartenOptions,
    /// The most connections, 3 to 1,000; 10 unless set. One of them listens for notifications.
    pub connections: u32,
    /// Where to listen for notifications, if not at the same address.
    pub listen: Option<PgConnectOptions>,
    /// How long to wait until a connection is made or becomes free; 10 seconds unless set.
    pub acquire_timeout: Duration,
}

const OF_STORE: &str = "`schema`, `own_schema`, `tenant`, `mode`, `gap_wait`, `ids`, \
    `stream_type`, `dotnet_type.<event type>`, `unknown_types`, `payloads`, `removal`, `archived`, \
    `read_only`, `create`, `writers`, `poll_interval`, `look_interval`, `request_timeout`, `migrate`, `connections`, `acquire_timeout`, `listen_url`";

impl MartenConfig {
    /// A store whose connections are made with these options of sqlx.
    #[must_use]
    pub fn new(connect: PgConnectOptions, options: MartenOptions) -> Self {
        let acquire_timeout = Duration::from_secs(10);
        Self { connect, options, connections: 10, listen: None, acquire_timeout }
    }

    /// Reads a URL: `marten://user:password@host:port/database`, with any of the parameters
    ///
    /// * `schema`, `own_schema`, `tenant`: see [`MartenOptions`];
    /// * `mode`: `auto`, `quick` or `rich`, how the .NET program appends;
    /// * `gap_wait`: how long a program in mode `Rich` may take to begin its transaction, such as `10s`;
    /// * `ids`: `typed`, or `named` to take streams of any name in a database whose ids are Guids;
    /// * `stream_type`: `category` or `none`;
    /// * `dotnet_type.<event type>`: the .NET type of an event type, as in
    ///   `dotnet_type.order_placed=Shop.OrderPlaced,+Shop`, with `%20` for the space;
    /// * `unknown_types`: `write` or `refuse`, for events without such a type;
    /// * `payloads`: `exact` or `jsonb`; `removal`: `soft` or `off`; `archived`: `hide` or `include`;
    /// * `read_only`: `true` or `false`;
    /// * `create`: `guid` or `string`, to make Marten's tables if they are missing;
    /// * `writers`, `connections`: numbers; `migrate`: `true` or `false`;
    /// * `poll_interval`, `look_interval`, `request_timeout`, `acquire_timeout`: `500ms`, `10s`, `2m`,
    ///   or a number of milliseconds;
    /// * `listen_url`, and those of libpq: as for `postgres:` URLs.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`], which names the part that is wrong and what it could be, and never
    /// shows the password.
    pub fn from_url(url: &str) -> Result<Self> {
        let (connect, parameters) = read(url, &["marten"])?;
        let mut config = Self::new(connect, MartenOptions::default());
        for parameter in &parameters {
            config.set(parameter)?;
        }
        config.check()?;
        config.options.resolve()?;
        Ok(config)
    }

    fn set(&mut self, parameter: &Parameter) -> Result<()> {
        let options = &mut self.options;
        let text = || parameter.value().to_owned();
        match parameter.name() {
            "schema" => options.schema = text(),
            "own_schema" => options.own_schema = Some(text()),
            "tenant" => options.tenant = Some(text()),
            "mode" => {
                options.mode = parameter.one_of([
                    ("auto", AppendMode::Auto),
                    ("quick", AppendMode::Quick),
                    ("rich", AppendMode::Rich),
                ])?
            }
            "gap_wait" => options.gap_wait = Some(parameter.milliseconds()?),
            "payloads" => {
                options.payloads =
                    parameter.one_of([("exact", Payloads::Exact), ("jsonb", Payloads::Jsonb)])?
            }
            "removal" => options.removal = parameter.one_of([("soft", true), ("off", false)])?,
            "archived" => {
                options.archived = parameter.one_of([("hide", false), ("include", true)])?
            }
            "read_only" => options.read_only = parameter.flag()?,
            "ids" => options.named = parameter.one_of([("typed", false), ("named", true)])?,
            "stream_type" => {
                options.stream_type = parameter
                    .one_of([("category", StreamType::Category), ("none", StreamType::None)])?
            }
            "unknown_types" => {
                options.refuse_unknown_types =
                    parameter.one_of([("write", false), ("refuse", true)])?
            }
            "create" => {
                options.create = parameter
                    .one_of([("guid", Some(Create::Guid)), ("string", Some(Create::String))])?
            }
            "writers" => options.writers = parameter.parsed("a number from 1 to 64")?,
            "poll_interval" => options.poll_interval = parameter.milliseconds()?,
            "look_interval" => options.look_interval = parameter.milliseconds()?,
            "request_timeout" => options.request_timeout = parameter.milliseconds()?,
            "migrate" => options.migrate = parameter.flag()?,
            "connections" => self.connections = parameter.parsed("a number from 3 to 1,000")?,
            "acquire_timeout" => self.acquire_timeout = parameter.milliseconds()?,
            "listen_url" => {
                let (listen, others) = read(parameter.value(), &["postgres", "postgresql"])?;
                if !others.is_empty() {
                    return Err(
                        parameter.invalid("a `postgres:` URL with parameters of libpq only")
                    );
                }
                self.listen = Some(listen);
            }
            name => match name.strip_prefix("dotnet_type.") {
                Some(event_type) if !event_type.is_empty() => {
                    options.dotnet_types.insert(event_type.to_owned(), text());
                }
                _ => {
                    let known = format!("{OF_STORE}, and, as in libpq, {}", names_of_libpq());
                    return Err(parameter.unknown(known));
                }
            },
        }
        Ok(())
    }

    /// Refuses values that cannot work.
    pub(crate) fn check(&self) -> Result<()> {
        if !(3..=1_000).contains(&self.connections) {
            let message =
                format!("`connections` is {}; use a number from 3 to 1000", self.connections);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        self.options.clone().resolve()
    }
}

/// Shows no password, as the `Debug` output of `PgConnectOptions` would.
impl fmt::Debug for MartenConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MartenConfig")
            .field("host", &self.connect.get_host())
            .field("port", &self.connect.get_port())
            .field("database", &self.connect.get_database())
            .field("options", &self.options)
            .field("connections", &self.connections)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_sets_everything() {
        let config = MartenConfig::from_url(
            "marten://me:p%40ss@db:6543/shop?schema=events&tenant=alpha&mode=quick&ids=named\
             &stream_type=none&dotnet_type.order_placed=Shop.OrderPlaced,%20Shop&unknown_types=refuse\
             &create=guid&writers=3&look_interval=20ms&migrate=false&connections=5&gap_wait=10s\
             &payloads=jsonb&removal=off&archived=hide&read_only=false",
        )
        .unwrap();
        let options = &config.options;
        assert_eq!((config.connect.get_port(), config.connections), (6543, 5));
        assert_eq!(options.dotnet_types["order_placed"], "Shop.OrderPlaced, Shop");
        assert_eq!((options.create, options.mode), (Some(Create::Guid), AppendMode::Quick));
        assert!(options.named && options.refuse_unknown_types && !options.migrate);
        assert_eq!(options.gap_wait, Some(Duration::from_secs(10)));
        assert_eq!((options.payloads, options.removal), (Payloads::Jsonb, false));
        assert!(!format!("{config:?}").contains("ss@"));
        let mut options = options.clone();
        options.resolve().unwrap();
        assert_eq!(options.own_schema(), "annals_events_alpha");
        options.own_schema = None;
        options.tenant = Some("Zoë".to_owned());
        options.resolve().unwrap();
        assert!(options.own_schema().starts_with("annals_") && options.own_schema().len() == 23);
    }

    #[test]
    fn mistakes_are_named() {
        for (url, says) in [
            ("marten://h/d?mode=fast", "`auto`, `quick` or `rich`"),
            ("marten://h/d?schema=Events", "`schema` is \"Events\""),
            ("marten://h/d?schema=a&own_schema=a", "one of its own"),
            ("marten://h/d?dotnet_type.=X", "no parameter `dotnet_type.`"),
            ("marten://h/d?connections=2", "from 3"),
            ("marten://h/d?archived=include", "add `read_only=true`"),
            ("marten://h/d?read_only=true&create=guid", "`read_only` forbids it"),
            ("marten://h/d?gap_wait=0", "`gap_wait` is 0"),
            ("marten://h/d?payloads=raw", "`exact` or `jsonb`"),
            ("marten://h/d?removal=hard", "`soft` or `off`"),
            ("marten://h/d?archived=yes", "`hide` or `include`"),
            ("postgres://me:hunter2@h/d", "does not begin with `marten:`"),
        ] {
            let error = MartenConfig::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!format!("{error}{error:?}").contains("hunter2"), "{url}: {error:?}");
        }
    }
}
