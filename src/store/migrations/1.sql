-- Version 1. SQLite keeps the comments inside a statement, so `.schema` in any SQLite tool shows what they say.
-- Times are milliseconds since 1970 UTC, phone numbers are E.164 without `+`.

CREATE TABLE verifications (
    seq               INTEGER PRIMARY KEY,   -- order of creation
    id                TEXT NOT NULL UNIQUE,  -- ver_ and a ULID
    application       TEXT NOT NULL,
    livemode          INTEGER NOT NULL,      -- 1 for a live application, 0 for a sandbox
    status            TEXT NOT NULL,         -- pending, then for good: verified expired canceled denied failed
    phone             INTEGER NOT NULL,
    number            INTEGER NOT NULL,      -- what the phone is to call
    purpose           TEXT,
    consent_document  TEXT,
    consent_sha256    TEXT,
    reference         TEXT,
    metadata          TEXT NOT NULL,         -- JSON object of texts
    minimum_assurance TEXT NOT NULL,         -- A to D
    locale            TEXT,
    client_ip         TEXT,
    client_device_id  TEXT,
    assurance         TEXT,                  -- of the call that verified it
    reasons           INTEGER NOT NULL,      -- a set: bit n stands for the n-th reason of the program's list
    created_at        INTEGER NOT NULL,
    expires_at        INTEGER NOT NULL,
    ended_at          INTEGER,               -- NULL exactly while pending
    sequence          INTEGER NOT NULL       -- how many events it has had
) STRICT;
CREATE INDEX verifications_pending ON verifications (expires_at) WHERE status = 'pending';
CREATE INDEX verifications_ended ON verifications (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX verifications_of_phone ON verifications (application, phone);

CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of the pull feed, never used twice
    id           TEXT NOT NULL UNIQUE,               -- evt_ and a ULID; the webhook-id
    application  TEXT NOT NULL,
    verification TEXT NOT NULL,                      -- verifications.id
    type         TEXT NOT NULL,                      -- verification.created and so on
    at           INTEGER NOT NULL,                   -- when it happened
    body         TEXT NOT NULL                       -- sent byte for byte on every try
) STRICT;
CREATE INDEX events_at ON events (at);

CREATE TABLE deliveries (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    event     INTEGER NOT NULL,               -- events.seq
    endpoint  TEXT NOT NULL,                  -- application and address
    event_at  INTEGER NOT NULL,               -- events.at
    state     TEXT NOT NULL DEFAULT 'due',    -- due delivered exhausted, parked while its endpoint is not configured
    attempts  INTEGER NOT NULL DEFAULT 0,     -- failed ones
    next_at   INTEGER NOT NULL,               -- when the next try is due
    done_at   INTEGER,                        -- when the receiver took it
    status    INTEGER,                        -- HTTP status with which it did
    error     TEXT                            -- of the last failed attempt
) STRICT;
CREATE INDEX deliveries_due ON deliveries (endpoint, next_at) WHERE state = 'due';
CREATE INDEX deliveries_not_due ON deliveries (event_at) WHERE state <> 'due';
CREATE INDEX deliveries_of_event ON deliveries (event);
CREATE INDEX deliveries_parked ON deliveries (endpoint) WHERE state = 'parked';

CREATE TABLE idempotency (
    seq          INTEGER PRIMARY KEY,
    application  TEXT NOT NULL,
    scope        TEXT NOT NULL,     -- the API key's name
    request_key  TEXT NOT NULL,     -- the Idempotency-Key header
    fingerprint  BLOB NOT NULL,     -- SHA-256 of the request
    status       INTEGER NOT NULL,  -- HTTP status of the answer
    body         TEXT NOT NULL,     -- the answer
    verification TEXT NOT NULL,     -- verifications.id
    created_at   INTEGER NOT NULL,
    UNIQUE (application, scope, request_key)
) STRICT;
CREATE INDEX idempotency_created ON idempotency (created_at);

CREATE TABLE calls (
    id           TEXT PRIMARY KEY,  -- call_ and a ULID
    verification TEXT NOT NULL,     -- verifications.id
    application  TEXT NOT NULL,
    trunk        TEXT NOT NULL,
    caller       INTEGER,           -- NULL where there is no number, or one that may not be shown
    dialled      INTEGER,
    source       TEXT,              -- the header that named the caller: pai from
    assurance    TEXT NOT NULL,     -- A to D
    reasons      INTEGER NOT NULL,  -- a set, as in verifications
    outcome      TEXT NOT NULL,     -- verified, refused (named the pair and did not verify), late
    received_at  INTEGER NOT NULL,
    call_key     INTEGER NOT NULL   -- keyed hash of Call-ID and From-tag
) STRICT;
CREATE INDEX calls_received ON calls (received_at);

-- Holds a row only for the moment in which the node tries whether a full disk takes writes again.
CREATE TABLE space_probe (filler BLOB NOT NULL) STRICT;
