-- Schema 7. Made by `cargo run -p kip-store --example schema`; changed by a migration only.

CREATE TABLE decisions (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL, at INTEGER AS (record ->> '$.at') VIRTUAL) STRICT;

CREATE INDEX decisions_by_function ON decisions (function, id);

CREATE INDEX decisions_by_time ON decisions (at);

CREATE TABLE instance_days (
    day INTEGER NOT NULL, function TEXT NOT NULL, version INTEGER NOT NULL, state TEXT NOT NULL, millis INTEGER NOT NULL,
    PRIMARY KEY (day, function, version, state)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_days (
    day INTEGER NOT NULL, function TEXT NOT NULL, version INTEGER NOT NULL, key TEXT NOT NULL,
    requests INTEGER NOT NULL, micros INTEGER NOT NULL,
    PRIMARY KEY (day, function, version, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE learnt (function TEXT PRIMARY KEY, history TEXT NOT NULL, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE priced_versions (
    version INTEGER PRIMARY KEY, label TEXT NOT NULL, resources TEXT NOT NULL, pauses INTEGER NOT NULL
) STRICT;

CREATE TABLE reached (
    function TEXT NOT NULL, qualifier TEXT NOT NULL, target INTEGER NOT NULL, at INTEGER NOT NULL,
    PRIMARY KEY (function, qualifier)
) STRICT, WITHOUT ROWID;

CREATE TABLE requests (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL, request TEXT AS (record ->> '$.id') VIRTUAL, at INTEGER AS (record ->> '$.at') VIRTUAL, version INTEGER AS (record ->> '$.version') VIRTUAL, instance TEXT AS (record ->> '$.instance') VIRTUAL, status INTEGER AS (record ->> '$.status') VIRTUAL, code TEXT AS (record ->> '$.code') VIRTUAL, start TEXT AS (record ->> '$.start') VIRTUAL, kind TEXT AS (record ->> '$.kind') VIRTUAL, outcome TEXT AS (record ->> '$.outcome') VIRTUAL, total_us INTEGER AS (record ->> '$.total_us') VIRTUAL, key TEXT AS (record ->> '$.key') VIRTUAL, tenant TEXT AS (record ->> '$.tenant') VIRTUAL) STRICT;

CREATE INDEX requests_by_function ON requests (function, id);

CREATE INDEX requests_by_id ON requests (request);

CREATE INDEX requests_by_instance ON requests (instance, id);

CREATE INDEX requests_by_key ON requests (key, id) WHERE key IS NOT NULL;

CREATE INDEX requests_by_tenant ON requests (tenant, id) WHERE tenant IS NOT NULL;

CREATE INDEX requests_by_time ON requests (at);

CREATE INDEX requests_by_total ON requests (total_us);

CREATE INDEX requests_failed ON requests (status, id) WHERE status >= 400;

CREATE INDEX requests_not_warm ON requests (start, id) WHERE start <> 'warm';

CREATE INDEX requests_with_code ON requests (code, id) WHERE code IS NOT NULL;

CREATE TABLE scaling (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL, at INTEGER AS (record ->> '$.at') VIRTUAL) STRICT;

CREATE INDEX scaling_by_function ON scaling (function, id);

CREATE INDEX scaling_by_time ON scaling (at);

CREATE TABLE usage (id INTEGER PRIMARY KEY, function TEXT NOT NULL, record TEXT NOT NULL, at INTEGER AS (record ->> '$.until') VIRTUAL) STRICT;

CREATE INDEX usage_by_function ON usage (function, id);

CREATE INDEX usage_by_time ON usage (at);
