-- The tables that a .NET program with Marten 9 and its default options makes, without Marten's functions:
-- the program adds these itself (`AutoCreate.CreateOrUpdate`). `{marten}` is replaced by the quoted name
-- of the schema, `{id}` by the type of stream ids.

CREATE TABLE {marten}.mt_streams (
    id                {id} NOT NULL,
    type              varchar,
    version           bigint,
    timestamp         timestamptz NOT NULL DEFAULT now(),
    created           timestamptz NOT NULL DEFAULT now(),
    tenant_id         varchar DEFAULT '*DEFAULT*',
    compacted_version bigint NOT NULL DEFAULT 0,
    is_archived       boolean DEFAULT false,
    CONSTRAINT pkey_mt_streams_id PRIMARY KEY (id)
);

CREATE TABLE {marten}.mt_events (
    seq_id         bigint NOT NULL,
    id             uuid NOT NULL,
    stream_id      {id},
    version        bigint NOT NULL,
    data           jsonb NOT NULL,
    bdata          bytea,
    type           varchar(500) NOT NULL,
    -- A quoted literal, as Marten has it: the moment at which the table was made.
    timestamp      timestamptz NOT NULL DEFAULT '(now())',
    tenant_id      varchar DEFAULT '*DEFAULT*',
    mt_dotnet_type varchar,
    is_archived    boolean DEFAULT false,
    CONSTRAINT pkey_mt_events_seq_id PRIMARY KEY (seq_id),
    CONSTRAINT fkey_mt_events_stream_id FOREIGN KEY (stream_id)
        REFERENCES {marten}.mt_streams (id) ON DELETE CASCADE
);

CREATE UNIQUE INDEX pk_mt_events_stream_and_version ON {marten}.mt_events (stream_id, version);

CREATE SEQUENCE {marten}.mt_events_sequence OWNED BY {marten}.mt_events.seq_id;

CREATE TABLE {marten}.mt_event_progression (
    name                       varchar NOT NULL,
    last_seq_id                bigint,
    last_updated               timestamptz DEFAULT transaction_timestamp(),
    mode                       varchar DEFAULT 'none',
    rebuild_threshold          integer DEFAULT 0,
    assigned_node              integer DEFAULT 0,
    heartbeat                  timestamptz,
    agent_status               varchar(20),
    pause_reason               text,
    running_on_node            integer,
    warning_behind_threshold   bigint,
    critical_behind_threshold  bigint,
    failure_category           varchar(50),
    failure_event_sequence     bigint,
    failure_event_type         varchar(500),
    failure_event_tenant_id    varchar(500),
    CONSTRAINT pk_mt_event_progression PRIMARY KEY (name)
);

CREATE TABLE {marten}.mt_event_projection_floors (
    name         varchar NOT NULL,
    tenant_id    varchar NOT NULL,
    floor        bigint NOT NULL,
    last_updated timestamptz DEFAULT transaction_timestamp(),
    CONSTRAINT pkey_mt_event_projection_floors_name_tenant_id PRIMARY KEY (name, tenant_id)
);

CREATE TABLE {marten}.mt_high_water_skips (
    ending_sequence   bigint NOT NULL,
    starting_sequence bigint NOT NULL,
    timestamp         timestamptz DEFAULT transaction_timestamp(),
    CONSTRAINT pkey_mt_high_water_skips_ending_sequence PRIMARY KEY (ending_sequence)
);
