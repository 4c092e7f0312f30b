//! The tables of `control.db`, step by step.

use crate::keys;

pub(crate) const MIGRATIONS: &[&str] =
    &[FIRST, keys::MIGRATION, PROVISIONS, MODEL, VERSIONS, SECRETS, RESOURCES, STICKY];

const FIRST: &str = "
    CREATE TABLE server (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, boot INTEGER NOT NULL) STRICT;
    CREATE TABLE documents (id INTEGER PRIMARY KEY, text TEXT NOT NULL, facade TEXT NOT NULL) STRICT;
    CREATE TABLE versions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function TEXT NOT NULL,
        spec TEXT NOT NULL,
        created INTEGER NOT NULL,
        document INTEGER NOT NULL REFERENCES documents (id)
    ) STRICT;
    CREATE INDEX versions_by_function ON versions (function, id);
    CREATE INDEX versions_by_document ON versions (document);
    CREATE TABLE functions (
        name TEXT PRIMARY KEY,
        latest INTEGER NOT NULL REFERENCES versions (id),
        serving INTEGER REFERENCES versions (id)
    ) STRICT;
    CREATE TABLE keys (hash BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, created INTEGER NOT NULL) STRICT;
";

const PROVISIONS: &str = "
    CREATE TABLE provisions (
        function TEXT NOT NULL,
        qualifier TEXT NOT NULL,
        settings TEXT NOT NULL,
        PRIMARY KEY (function, qualifier)
    ) STRICT;
";

/// Functions with ids that are never reused, revisions that belong to an id, and a row for each commit. Revisions keep the numbers
/// that versions had. The old tables are renamed first: a reference to `functions (id)` must find the new one.
const MODEL: &str = "
    CREATE TABLE changes (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        key TEXT NOT NULL,
        object TEXT NOT NULL,
        op TEXT NOT NULL
    ) STRICT;
    INSERT INTO changes (at, key, object, op) VALUES (CAST(unixepoch('subsec') * 1000 AS INTEGER), '', '', 'migrate');

    ALTER TABLE functions RENAME TO functions_3;
    ALTER TABLE versions RENAME TO versions_3;
    DROP INDEX versions_by_function;
    DROP INDEX versions_by_document;
    CREATE TABLE functions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        desired INTEGER NOT NULL REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED,
        serving INTEGER REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED,
        rev INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE revisions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
        ordinal INTEGER NOT NULL,
        spec TEXT NOT NULL,
        document INTEGER NOT NULL REFERENCES documents (id),
        created INTEGER NOT NULL,
        UNIQUE (function, ordinal)
    ) STRICT;
    CREATE INDEX revisions_by_document ON revisions (document);
    INSERT INTO functions (name, desired, serving, rev) SELECT name, latest, serving, 1 FROM functions_3 ORDER BY name;
    INSERT INTO revisions (id, function, ordinal, spec, document, created)
        SELECT v.id, f.id, row_number() OVER (PARTITION BY f.id ORDER BY v.id), v.spec, v.document, v.created
        FROM versions_3 v JOIN functions f ON f.name = v.function ORDER BY v.id;
    DELETE FROM sqlite_sequence WHERE name = 'revisions';
    INSERT INTO sqlite_sequence (name, seq) SELECT 'revisions', seq FROM sqlite_sequence WHERE name = 'versions_3';

    CREATE TABLE settings (
        function INTEGER NOT NULL REFERENCES functions (id),
        qualifier TEXT NOT NULL,
        kind TEXT NOT NULL,
        config TEXT NOT NULL,
        rev INTEGER NOT NULL,
        PRIMARY KEY (function, qualifier, kind)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO settings SELECT f.id, p.qualifier, 'provision', p.settings, 1
        FROM provisions p JOIN functions f ON f.name = p.function;
    DROP TABLE provisions;
    DROP TABLE functions_3;
    DROP TABLE versions_3;

    ALTER TABLE keys ADD COLUMN rev INTEGER NOT NULL DEFAULT 1;
";

/// Numbers of versions, aliases, traffic by function, and what served or was pointed at before.
const VERSIONS: &str = "
    ALTER TABLE functions ADD COLUMN next_number INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE functions ADD COLUMN traffic TEXT;
    ALTER TABLE functions ADD COLUMN before INTEGER REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED;
    CREATE TABLE versions (
        function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
        number INTEGER NOT NULL,
        revision INTEGER NOT NULL UNIQUE REFERENCES revisions (id) DEFERRABLE INITIALLY DEFERRED,
        description TEXT NOT NULL,
        created INTEGER NOT NULL,
        PRIMARY KEY (function, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE aliases (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        function INTEGER NOT NULL REFERENCES functions (id) DEFERRABLE INITIALLY DEFERRED,
        name TEXT NOT NULL,
        targets TEXT NOT NULL,
        before TEXT,
        description TEXT NOT NULL,
        rev INTEGER NOT NULL,
        UNIQUE (function, name)
    ) STRICT;
";

/// What facades keep that belongs to no function: layers and custom domains of Function Compute.
const RESOURCES: &str = "
    CREATE TABLE resources (
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        config TEXT NOT NULL,
        code TEXT,
        rev INTEGER NOT NULL,
        PRIMARY KEY (kind, name)
    ) STRICT, WITHOUT ROWID;
";

/// By what callers of an alias stay on their version.
const STICKY: &str = "ALTER TABLE aliases ADD COLUMN sticky TEXT;";

/// Sealed secrets, access-key pairs, triggers, and what facades keep of a revision that its declaration has no word for.
const SECRETS: &str = "
    CREATE TABLE secrets (
        name TEXT PRIMARY KEY,
        generation INTEGER NOT NULL,
        sealed BLOB NOT NULL,
        changed INTEGER NOT NULL,
        rev INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    ALTER TABLE keys ADD COLUMN access_id TEXT;
    ALTER TABLE keys ADD COLUMN sealed BLOB;
    CREATE UNIQUE INDEX keys_by_access_id ON keys (access_id) WHERE access_id IS NOT NULL;
    ALTER TABLE revisions ADD COLUMN extra TEXT;
    ALTER TABLE revisions ADD COLUMN code TEXT;
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
";
