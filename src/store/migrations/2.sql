-- Version 2: an application's lists, deliveries that can be looked at and replayed, endpoints with a state.

CREATE INDEX verifications_of_application ON verifications (application);
CREATE INDEX verifications_by_status ON verifications (application, status);
CREATE INDEX verifications_by_reference ON verifications (application, reference) WHERE reference IS NOT NULL;
CREATE INDEX calls_of_verification ON calls (verification);

-- Events hold nearly all of a file's bytes, and what is stored of them does not change: only the words of the table do,
-- as https://www.sqlite.org/lang_altertable.html 7 describes.
PRAGMA writable_schema = ON;
UPDATE sqlite_schema SET sql = 'CREATE TABLE events (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,  -- order of the pull feed, never used twice
    id           TEXT NOT NULL UNIQUE,               -- evt_ and a ULID; the webhook-id
    application  TEXT NOT NULL,
    verification TEXT,                               -- verifications.id, where it is about one
    type         TEXT NOT NULL,                      -- verification.created and so on
    at           INTEGER NOT NULL,                   -- when it happened
    body         TEXT NOT NULL                       -- sent byte for byte on every try
) STRICT' WHERE type = 'table' AND name = 'events';
PRAGMA writable_schema = RESET;
CREATE INDEX events_of_application ON events (application);

-- Written anew, for columns that are added behind carry no comment.
CREATE TABLE deliveries_2 (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    application    TEXT NOT NULL,
    event          INTEGER NOT NULL,             -- events.seq
    endpoint       TEXT NOT NULL,                -- application and address
    state          TEXT NOT NULL DEFAULT 'due',  -- due delivered exhausted, parked while its endpoint is disabled or not configured
    planned_from   INTEGER NOT NULL,             -- when the plan of tries begins: at the event, or at the last replay
    attempts       INTEGER NOT NULL DEFAULT 0,   -- tries made, those before a replay too
    replayed_after INTEGER NOT NULL DEFAULT 0,   -- how many of them were made before the last replay
    next_at        INTEGER NOT NULL,             -- when the next try is due
    last_at        INTEGER,                      -- end of the last try; of a delivered one, when the receiver took it
    status         INTEGER,                      -- HTTP status of the last try, where there was an answer
    error          TEXT                          -- what went wrong with the last try
) STRICT;
INSERT INTO sqlite_sequence (name, seq) SELECT 'deliveries_2', seq FROM sqlite_sequence WHERE name = 'deliveries';
INSERT INTO deliveries_2
    (id, application, event, endpoint, state, planned_from, attempts, next_at, last_at, status, error)
    SELECT id, coalesce((SELECT application FROM events WHERE seq = event), ''), event, endpoint, state, event_at,
           attempts + (state = 'delivered'), next_at, done_at, status, CASE WHEN state <> 'delivered' THEN error END
    FROM deliveries ORDER BY id;

DROP TABLE deliveries;
ALTER TABLE deliveries_2 RENAME TO deliveries;

CREATE INDEX deliveries_due ON deliveries (endpoint, next_at) WHERE state = 'due';
CREATE INDEX deliveries_not_due ON deliveries (planned_from) WHERE state <> 'due';
CREATE INDEX deliveries_of_event ON deliveries (event);
CREATE INDEX deliveries_parked ON deliveries (endpoint) WHERE state = 'parked';
CREATE INDEX deliveries_of_application ON deliveries (application);
CREATE INDEX deliveries_undelivered ON deliveries (application, state) WHERE state <> 'delivered';

CREATE TABLE endpoints (
    id            TEXT PRIMARY KEY,            -- deliveries.endpoint; there is a row once a try has failed
    application   TEXT NOT NULL,
    failing_since INTEGER,                     -- when the first of the tries failed that have all failed since
    failures      INTEGER NOT NULL DEFAULT 0,  -- how many these are
    disabled_at   INTEGER,                     -- NULL while events are sent to it
    reason        TEXT                         -- why it is disabled: gone failing
) STRICT;
