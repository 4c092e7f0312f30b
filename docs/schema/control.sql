-- Schema 8. Made by `cargo run -p kip-store --example schema`; changed by a migration only.

CREATE TABLE aliases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
    name TEXT NOT NULL,
    targets TEXT NOT NULL,
    before TEXT,
    description TEXT NOT NULL,
    rev INTEGER NOT NULL, sticky TEXT,
    UNIQUE (function, name)
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    key_id INTEGER NOT NULL,
    action TEXT NOT NULL,
    object TEXT NOT NULL,
    peer TEXT NOT NULL,
    result TEXT NOT NULL
) STRICT;

CREATE INDEX audit_by_key ON audit (key, id);

CREATE INDEX audit_by_object ON audit (object, id);

CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    key TEXT NOT NULL,
    object TEXT NOT NULL,
    op TEXT NOT NULL
) STRICT;

CREATE TABLE documents (id INTEGER PRIMARY KEY, text TEXT NOT NULL, facade TEXT NOT NULL) STRICT;

CREATE TABLE functions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    desired INTEGER NOT NULL REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED,
    serving INTEGER REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED,
    rev INTEGER NOT NULL
, next_number INTEGER NOT NULL DEFAULT 1, traffic TEXT, before INTEGER REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED) STRICT;

CREATE TABLE "keys" (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    hash BLOB NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    role TEXT NOT NULL,
    functions TEXT NOT NULL,
    rate TEXT,
    burst INTEGER,
    concurrency INTEGER,
    tenant TEXT NOT NULL,
    expires INTEGER,
    disabled INTEGER NOT NULL,
    last_use INTEGER,
    rotated INTEGER,
    previous BLOB,
    previous_until INTEGER
, rev INTEGER NOT NULL DEFAULT 1, access_id TEXT, sealed BLOB) STRICT;

CREATE UNIQUE INDEX keys_by_access_id ON keys (access_id) WHERE access_id IS NOT NULL;

CREATE TABLE resources (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    config TEXT NOT NULL,
    code TEXT,
    rev INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE revisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
    ordinal INTEGER NOT NULL,
    spec TEXT NOT NULL,
    document INTEGER NOT NULL REFERENCES documents (id),
    created INTEGER NOT NULL, extra TEXT, code TEXT,
    UNIQUE (function, ordinal)
) STRICT;

CREATE INDEX revisions_by_document ON revisions (document);

CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    generation INTEGER NOT NULL,
    sealed BLOB NOT NULL,
    changed INTEGER NOT NULL,
    rev INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE server (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, boot INTEGER NOT NULL) STRICT;

CREATE TABLE settings (
    function INTEGER NOT NULL REFERENCES functions (id),
    qualifier TEXT NOT NULL,
    kind TEXT NOT NULL,
    config TEXT NOT NULL,
    rev INTEGER NOT NULL,
    PRIMARY KEY (function, qualifier, kind)
) STRICT, WITHOUT ROWID;

CREATE TABLE triggers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    qualifier TEXT NOT NULL,
    config TEXT NOT NULL,
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    UNIQUE (function, name)
) STRICT;

CREATE TABLE versions (
    function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
    number INTEGER NOT NULL,
    revision INTEGER NOT NULL UNIQUE REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED,
    description TEXT NOT NULL,
    created INTEGER NOT NULL,
    PRIMARY KEY (function, number)
) STRICT, WITHOUT ROWID;
