-- Schema 4. Made by `cargo run -p kip-store --example schema`; changed by a migration only.

CREATE TABLE blobs (hash TEXT PRIMARY KEY, refs INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE configs (function TEXT NOT NULL, qualifier TEXT NOT NULL, text TEXT NOT NULL,
PRIMARY KEY (function, qualifier)) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT, task INTEGER NOT NULL, target TEXT NOT NULL, attempts INTEGER NOT NULL,
    run_at INTEGER NOT NULL
) STRICT;

CREATE TABLE ids (
    function TEXT NOT NULL, kind INTEGER NOT NULL, id TEXT NOT NULL, tenant TEXT NOT NULL, number INTEGER NOT NULL,
    PRIMARY KEY (function, kind, id, tenant)
) STRICT, WITHOUT ROWID;

CREATE TABLE inputs (
    number INTEGER PRIMARY KEY, envelope TEXT NOT NULL, bytes BLOB, blob TEXT, key TEXT, fingerprint BLOB NOT NULL
) STRICT;

CREATE TABLE meta (one INTEGER PRIMARY KEY CHECK (one = 1), next INTEGER NOT NULL) STRICT;

CREATE TABLE outputs (number INTEGER PRIMARY KEY, head TEXT NOT NULL, bytes BLOB, blob TEXT) STRICT;

CREATE TABLE progress (
    task INTEGER NOT NULL, event INTEGER NOT NULL, at INTEGER NOT NULL, text TEXT NOT NULL, PRIMARY KEY (task, event)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    number INTEGER PRIMARY KEY,
    function TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    tenant TEXT NOT NULL,
    id TEXT,
    kind INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    order_key TEXT,
    created INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    state INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    boot INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    run_at INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    crashes INTEGER NOT NULL,
    refusals INTEGER NOT NULL,
    instance TEXT,
    status INTEGER NOT NULL,
    error_kind TEXT,
    error TEXT,
    events TEXT NOT NULL,
    destinations TEXT NOT NULL,
    progress TEXT
, function_id INTEGER NOT NULL DEFAULT 0, server TEXT NOT NULL DEFAULT '', revision INTEGER NOT NULL DEFAULT 0, last_event INTEGER NOT NULL DEFAULT 1, size INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE INDEX tasks_open ON tasks (number) WHERE state < 10;
