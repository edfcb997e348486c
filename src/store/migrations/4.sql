-- Version 4: the audit log, and what erasing a person's data needs.

ALTER TABLE verifications ADD COLUMN phone_key /* random; the phone's HMAC under it stands in the audit log; NULL of what ended before version 4 */ BLOB;
ALTER TABLE verifications ADD COLUMN api_key /* id of the API key that began it */ TEXT;
UPDATE verifications SET phone_key = randomblob(32) WHERE status = 'pending';

CREATE TABLE audit (
    seq          INTEGER PRIMARY KEY,  -- from 1, none left out
    at           INTEGER NOT NULL,     -- when, as in the text
    kind         TEXT NOT NULL,        -- what, as in the text
    verification TEXT,                 -- of a verification.ended: which
    text         TEXT NOT NULL,        -- the entry: JSON, with the hash of the one before
    hash         BLOB NOT NULL         -- SHA-256 of the text
) STRICT;
CREATE INDEX audit_of_verification ON audit (verification) WHERE verification IS NOT NULL;

CREATE TABLE audit_checkpoints (
    seq INTEGER PRIMARY KEY,  -- audit.seq of the newest entry then
    at  INTEGER NOT NULL,     -- when it was signed
    jws TEXT NOT NULL         -- that entry's number and hash, signed
) STRICT;

CREATE INDEX events_of_verification ON events (verification) WHERE verification IS NOT NULL;
CREATE INDEX idempotency_of_verification ON idempotency (verification);
-- Calls whose caller may be another one than the phone of the verification that they named.
CREATE INDEX calls_of_others ON calls (caller) WHERE caller IS NOT NULL AND outcome IN ('refused', 'mismatched');
