//! Layers: independent directories in overlay's own format, found again by the digest of their tar.
#![expect(clippy::disallowed_methods, reason = "the state directory is ours alone")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use kiln_oci::{Descriptor, Digest};
use rusqlite::{OptionalExtension as _, Transaction, params};

use crate::clean::remove_dir;
use crate::db::now;
use crate::doubt::boot_id;
use crate::error::{Error, IoContext as _, Result};
use crate::image::column;
use crate::layout::make_private_dir;
use crate::lease::{Item, Lease};
use crate::snapshot::{ActiveLayer, LayerId, LayerInfo};
use crate::store::Store;
use crate::testing::reached;

/// A layer's tar, once it was unpacked.
#[derive(Debug, Clone, Copy)]
pub struct Unpacked<'a> {
    /// The digest of the tar.
    pub diff_id: &'a Digest,
    /// Bytes of its files.
    pub size: u64,
    /// The form it came packed in.
    pub blob: Option<&'a Descriptor>,
}

impl Store {
    /// Starts a layer with nothing below it.
    pub fn begin_layer(&self, lease: &Lease) -> Result<ActiveLayer> {
        let name = lease.fresh_name();
        let dir = self.shared.layout.work().join(&name);
        let id = name.parse().expect("lease names are made to be layer ids");
        make_private_dir(&dir).context("create", &dir)?;
        let active = ActiveLayer { id, dir, lease: lease.clone() };
        let tree = active.tree();
        // What a root directory is when nothing says otherwise, whatever the umask.
        std::fs::create_dir(&tree)
            .and_then(|()| std::fs::set_permissions(&tree, Permissions::from_mode(0o755)))
            .context("create", &tree)?;
        reached("layer: begun");
        Ok(active)
    }

    /// Keeps a layer that was unpacked. Of several layers with one `diff_id`, made at the same time, all callers get the
    /// same one.
    pub fn commit_layer(&self, active: ActiveLayer, unpacked: &Unpacked<'_>) -> Result<LayerId> {
        let diff_id = unpacked.diff_id;
        if let Some(winner) = self.find_layer_by_diff_id(diff_id)?
            && active.lease.hold(&[Item::Layer(winner.clone())])?.is_none()
        {
            self.discard_layer(active)?;
            return Ok(winner);
        }
        self.publish_layer(&active, Some(unpacked))
    }

    /// Moves a finished layer from where it was worked on to where it is kept.
    pub(crate) fn publish_layer(&self, active: &ActiveLayer, unpacked: Option<&Unpacked<'_>>) -> Result<LayerId> {
        self.clear_overlay_work(active)?;
        reached("layer: finished");
        let kept = {
            let _no_sweep = self.shared.no_sweep()?;
            self.keep(active, unpacked)?
        };
        if kept != active.id {
            let dir = self.shared.layout.layer(&active.id);
            remove_dir(&dir)?;
        }
        Ok(kept)
    }

    /// Throws a layer away.
    pub fn discard_layer(&self, active: ActiveLayer) -> Result<()> {
        remove_dir(&active.dir)
    }

    /// Where a layer's tree is. Hold the layer by a lease while you read it.
    pub fn layer_dir(&self, layer: &LayerId) -> PathBuf {
        self.shared.layout.layer(layer).join("fs")
    }

    /// What is known of a layer.
    pub fn layer(&self, layer: &LayerId) -> Result<LayerInfo> {
        let (row, blobs) = self.shared.db.read(|db| {
            let mut select = db.prepare_cached("SELECT diff_id, size, created FROM layers WHERE id = ?1")?;
            let info = |row: &rusqlite::Row<'_>| {
                let diff_id = row.get::<_, Option<String>>(0)?.and_then(|text| text.parse().ok());
                Ok(LayerInfo { diff_id, size: row.get(1)?, created: row.get(2)?, blobs: Vec::new() })
            };
            let blobs = "SELECT descriptor FROM layer_blobs WHERE layer = ?1 ORDER BY digest";
            Ok((select.query_row([layer.as_str()], info).optional()?, column(db, blobs, [layer.as_str()])?))
        })?;
        let info = row.ok_or_else(|| Error::UnknownLayer { layer: layer.clone() })?;
        let parse = |text: &String| serde_json::from_str(text).map_err(|source| damaged(layer, source));
        Ok(LayerInfo { blobs: blobs.iter().map(parse).collect::<Result<_>>()?, ..info })
    }

    /// Notes the digest of a layer's tar and the bytes of its files, once it was packed or unpacked.
    pub fn set_diff_id(&self, layer: &LayerId, diff_id: &Digest, size: u64) -> Result<()> {
        let changed = self.shared.db.write(|db| {
            let sql = "UPDATE layers SET diff_id = ?2, size = ?3 WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![layer.as_str(), diff_id.as_str(), size])
        })?;
        if changed == 0 { Err(Error::UnknownLayer { layer: layer.clone() }) } else { Ok(()) }
    }

    /// Notes when a layer was made, in seconds since 1970, when it was made elsewhere.
    pub fn set_created(&self, layer: &LayerId, created: i64) -> Result<()> {
        let changed = self.shared.db.write(|db| {
            let sql = "UPDATE layers SET created = ?2 WHERE id = ?1";
            db.prepare_cached(sql)?.execute(params![layer.as_str(), created])
        })?;
        if changed == 0 { Err(Error::UnknownLayer { layer: layer.clone() }) } else { Ok(()) }
    }

    /// Notes a packed form of a layer. When it is in the content store it is kept as long as the layer.
    pub fn add_blob(&self, layer: &LayerId, blob: &Descriptor) -> Result<()> {
        let known = self.shared.db.write(|db| {
            if !Item::Layer(layer.clone()).exists(db)? {
                return Ok(false);
            }
            insert_blob(db, layer.as_str(), blob)?;
            Ok(true)
        })?;
        if known { Ok(()) } else { Err(Error::UnknownLayer { layer: layer.clone() }) }
    }

    /// Finds a layer by the digest of its tar. It is not held: use it after [`Lease::hold_snapshot`] said yes.
    pub fn find_layer_by_diff_id(&self, diff_id: &Digest) -> Result<Option<LayerId>> {
        self.shared.db.read(|db| layer_with(db, diff_id))
    }

    /// Overlay's own directory, or a copy in its place, is of no use to a finished layer.
    fn clear_overlay_work(&self, active: &ActiveLayer) -> Result<()> {
        let own = [active.overlay_work(), active.flat(), active.stash()];
        own.iter().filter(|dir| dir.symlink_metadata().is_ok()).try_for_each(|dir| remove_dir(dir))
    }

    /// Moves the directory into place, then writes the row: a row always has its directory.
    fn keep(&self, active: &ActiveLayer, unpacked: Option<&Unpacked<'_>>) -> Result<LayerId> {
        active.lease.note(&[Item::Layer(active.id.clone())])?;
        let dir = self.shared.layout.layer(&active.id);
        std::fs::rename(&active.dir, &dir).context("rename", &active.dir)?;
        self.shared.grew();
        reached("layer: renamed");
        let boot = boot_id();
        let winner = self.shared.db.write(|db| {
            if let Some(unpacked) = unpacked
                && let Some(winner) = layer_with(db, unpacked.diff_id)?
            {
                return Ok(Some(winner));
            }
            insert(db, active, unpacked, &boot)?;
            Ok(None)
        })?;
        reached("layer: recorded");
        let Some(winner) = winner else { return Ok(active.id.clone()) };
        self.shared.decided(&Item::Layer(winner.clone()))?;
        active.lease.note(&[Item::Layer(winner.clone())])?;
        Ok(winner)
    }
}

/// All that is known of a layer goes in at once: its tar's digest without the tar would be a promise nobody can keep,
/// since the same files may be packed in many ways.
fn insert(
    db: &Transaction<'_>,
    active: &ActiveLayer,
    unpacked: Option<&Unpacked<'_>>,
    boot: &str,
) -> rusqlite::Result<()> {
    let id = active.id.as_str();
    let (diff_id, size) = unpacked.map(|unpacked| (unpacked.diff_id.as_str(), unpacked.size)).unzip();
    let sql = "INSERT INTO layers (id, diff_id, size, created, boot) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.prepare_cached(sql)?.execute(params![id, diff_id, size, now(), boot])?;
    unpacked.and_then(|unpacked| unpacked.blob).map_or(Ok(()), |blob| insert_blob(db, id, blob))
}

fn insert_blob(db: &Transaction<'_>, layer: &str, blob: &Descriptor) -> rusqlite::Result<()> {
    let text = serde_json::to_string(blob).expect("plain data with string keys serialises");
    let sql = "INSERT INTO layer_blobs (layer, digest, descriptor) VALUES (?1, ?2, ?3)
               ON CONFLICT DO UPDATE SET descriptor = excluded.descriptor";
    db.prepare_cached(sql)?.execute([layer, blob.digest.as_str(), &text]).map(drop)
}

/// The oldest layer with this tar; ids are never written by strangers, so one that does not parse counts as none.
fn layer_with(db: &rusqlite::Connection, diff_id: &Digest) -> rusqlite::Result<Option<LayerId>> {
    let sql = "SELECT id FROM layers WHERE diff_id = ?1 ORDER BY created, id LIMIT 1";
    let found = db.prepare_cached(sql)?.query_row([diff_id.as_str()], |row| row.get::<_, String>(0)).optional()?;
    Ok(found.and_then(|id| id.parse().ok()))
}

fn damaged(layer: &LayerId, source: serde_json::Error) -> Error {
    Error::Damaged { what: format!("layer {layer}"), source }
}
