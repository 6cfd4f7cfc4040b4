//! The tables, and how an older state directory becomes a current one.
// tidy: table

/// Marks the file as ours (`PRAGMA application_id`): "kiln" in ASCII.
pub(crate) const APPLICATION_ID: i64 = 0x6b69_6c6e;

/// The schema this binary reads and writes: the number of steps in [`MIGRATIONS`].
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// Step `n` takes schema `n` to `n + 1`. Steps are only ever added.
pub(crate) const MIGRATIONS: &[&str] = &[FIRST, BUILDS, UNSYNCED, USE, UNSYNCED_BLOBS];

/// Laws held by the schema itself:
/// - a layer or blob that an image holds cannot be deleted (no `ON DELETE` on those references);
/// - a layer or blob that a result holds takes the result with it, so that the step is a miss, never a broken hit;
/// - `boot` names the boot in which a layer or blob was written and not yet synced, so that an unclean restart can doubt it.
const FIRST: &str = "
CREATE TABLE blobs (
    digest      TEXT PRIMARY KEY,
    size        INTEGER NOT NULL,
    media_type  TEXT NOT NULL,
    created     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE layers (
    id          TEXT PRIMARY KEY,
    diff_id     TEXT,
    size        INTEGER, -- bytes of its files
    disk        INTEGER, -- bytes of disk it takes
    created     INTEGER NOT NULL,
    boot        TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX layers_by_diff_id ON layers (diff_id, created, id) WHERE diff_id IS NOT NULL;

CREATE TABLE layer_blobs (
    layer       TEXT NOT NULL REFERENCES layers (id) ON DELETE CASCADE,
    digest      TEXT NOT NULL,
    descriptor  TEXT NOT NULL,
    PRIMARY KEY (layer, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX layer_blobs_by_digest ON layer_blobs (digest);

CREATE TABLE images (
    id          TEXT PRIMARY KEY,
    manifest    TEXT,
    record      TEXT NOT NULL,
    stored      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX images_by_manifest ON images (manifest) WHERE manifest IS NOT NULL;

CREATE TABLE image_layers (
    image       TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    layer       TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (image, layer)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (layer);

CREATE TABLE image_blobs (
    image       TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    blob        TEXT NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (image, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX image_blobs_by_blob ON image_blobs (blob);

CREATE TABLE names (
    name        TEXT PRIMARY KEY,
    image       TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
    updated     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX names_by_image ON names (image);

CREATE TABLE results (
    key         TEXT PRIMARY KEY,
    value       BLOB NOT NULL,
    created     INTEGER NOT NULL,
    used        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX results_by_use ON results (used);

CREATE TABLE result_layers (
    result      TEXT NOT NULL REFERENCES results (key) ON DELETE CASCADE,
    layer       TEXT NOT NULL REFERENCES layers (id),
    PRIMARY KEY (result, layer)
) STRICT, WITHOUT ROWID;
CREATE INDEX result_layers_by_layer ON result_layers (layer);

CREATE TABLE result_blobs (
    result      TEXT NOT NULL REFERENCES results (key) ON DELETE CASCADE,
    blob        TEXT NOT NULL REFERENCES blobs (digest),
    PRIMARY KEY (result, blob)
) STRICT, WITHOUT ROWID;
CREATE INDEX result_blobs_by_blob ON result_blobs (blob);

CREATE TRIGGER layer_takes_its_results BEFORE DELETE ON layers BEGIN
    DELETE FROM results WHERE key IN (SELECT result FROM result_layers WHERE layer = OLD.id);
END;
CREATE TRIGGER blob_takes_its_results BEFORE DELETE ON blobs BEGIN
    DELETE FROM results WHERE key IN (SELECT result FROM result_blobs WHERE blob = OLD.digest);
END;

CREATE TABLE facts (
    kind        TEXT NOT NULL,
    key         TEXT NOT NULL,
    value       BLOB NOT NULL,
    used        INTEGER NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE cache_mounts (
    key         TEXT PRIMARY KEY,
    id          TEXT NOT NULL,
    created     INTEGER NOT NULL,
    used        INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE stat_pages (
    dev         INTEGER NOT NULL,
    page        INTEGER NOT NULL,
    entries     BLOB NOT NULL,
    used        INTEGER NOT NULL,
    PRIMARY KEY (dev, page)
) STRICT, WITHOUT ROWID;
";

/// The record of builds, in the order of their numbers.
const BUILDS: &str = "
CREATE TABLE builds (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    target      TEXT NOT NULL,
    ended       INTEGER NOT NULL,
    state       TEXT, -- what a build that did nothing found; NULL for all others
    value       BLOB NOT NULL
) STRICT;
";

/// Layers that are not known to be on disk are looked for whenever the state directory is opened.
const UNSYNCED: &str = "CREATE INDEX layers_unsynced ON layers (boot) WHERE boot <> '';";

/// What tells people of the things that are kept: whose they are, how often they were of use, how large they are.
const USE: &str = "
ALTER TABLE results ADD COLUMN step TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN origin TEXT NOT NULL DEFAULT ''; -- the Dockerfile
ALTER TABLE results ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cache_mounts ADD COLUMN uses INTEGER NOT NULL DEFAULT 1;
ALTER TABLE cache_mounts ADD COLUMN disk INTEGER; -- bytes of disk it takes, unless it was used since
";

/// Content is not synced when it is written, either.
const UNSYNCED_BLOBS: &str = "
ALTER TABLE blobs ADD COLUMN boot TEXT NOT NULL DEFAULT '';
CREATE INDEX blobs_unsynced ON blobs (boot) WHERE boot <> '';
";
