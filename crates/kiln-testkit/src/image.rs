//! Images put together by hand, right or wrong, as OCI layouts.

use std::io::Write as _;
use std::path::Path;

use kiln_oci::Digest;
use serde_json::{Value, json};

use crate::Forge;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// What a step may want to call; links to busybox.
const APPLETS: &str = "sh cat ls id mount umount sleep mkdir rm ln mv cp touch echo env pwd hostname ps kill mknod chmod chown \
    unshare setsid true false stat dd head wc grep su chroot ip find sort readlink test tail tr cut od nc sed yes seq nslookup";

/// An image being forged: what is said of it is true until a change makes it a lie.
#[derive(Default)]
pub struct ForgedImage {
    layers: Vec<Layer>,
    config: Vec<Change>,
    manifest: Vec<Change>,
    config_bytes: Option<Vec<u8>>,
}

type Change = Box<dyn FnOnce(&mut Value)>;

struct Layer {
    media_type: String,
    bytes: Vec<u8>,
    diff_id: Digest,
}

impl ForgedImage {
    /// One without layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// One with a static busybox, an `/etc/passwd`, and `/tmp`; nothing where the kernel's places will be.
    pub fn busybox() -> Self {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find_map(|path| std::fs::read(path).ok());
        let size = busybox.as_ref().map_or(0, |bytes| bytes.len() as u64);
        let forge = Forge::new().dir("bin").head(b'0', b"bin/busybox", |head| {
            head.octal(124, 12, size);
            head.octal(100, 8, 0o755);
        });
        let forge = forge.body(&busybox.expect("busybox-static is installed"));
        let forge = APPLETS.split_whitespace().fold(forge, |forge, name| forge.link(&format!("bin/{name}"), "busybox"));
        let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n";
        let forge = forge.dir("etc").file("etc/passwd", passwd);
        let forge = forge.file("etc/group", "root:x:0:\ndaemon:x:1:\nmail:x:8:daemon\n").dir("root");
        Self::new().layer(forge.head(b'5', b"tmp", |head| head.octal(100, 8, 0o1777)).end())
    }

    /// A layer as it is.
    #[must_use]
    pub fn layer(mut self, tar: Vec<u8>) -> Self {
        let diff_id = Digest::sha256(&tar);
        self.layers.push(Layer { media_type: LAYER.to_owned(), bytes: tar, diff_id });
        self
    }

    /// A layer, packed with gzip.
    #[must_use]
    pub fn gzip_layer(mut self, tar: &[u8]) -> Self {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(tar).expect("memory takes all");
        let bytes = gzip.finish().expect("memory takes all");
        self.layers.push(Layer { media_type: format!("{LAYER}+gzip"), bytes, diff_id: Digest::sha256(tar) });
        self
    }

    /// Changes the config before it is written.
    #[must_use]
    pub fn config(mut self, change: impl FnOnce(&mut Value) + 'static) -> Self {
        self.config.push(Box::new(change));
        self
    }

    /// Puts these bytes in the config's place.
    #[must_use]
    pub fn config_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.config_bytes = Some(bytes.into());
        self
    }

    /// Changes the manifest before it is written.
    #[must_use]
    pub fn manifest(mut self, change: impl FnOnce(&mut Value) + 'static) -> Self {
        self.manifest.push(Box::new(change));
        self
    }

    /// Writes a layout with this image, tagged `t`; gives the digests of its layers.
    pub fn write(self, dir: &Path) -> Vec<String> {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).expect("a directory");
        let put = |kind: &str, bytes: &[u8]| {
            let digest = Digest::sha256(bytes);
            std::fs::write(blobs.join(digest.hex()), bytes).expect("a blob");
            json!({"mediaType": kind, "digest": digest.as_str(), "size": bytes.len()})
        };
        let layers: Vec<Value> = self.layers.iter().map(|layer| put(&layer.media_type, &layer.bytes)).collect();
        let digests = layers.iter().map(|layer| layer["digest"].as_str().unwrap_or_default().to_owned()).collect();
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let mut config = json!({
            "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "forged"})).collect::<Vec<_>>(),
        });
        self.config.into_iter().for_each(|change| change(&mut config));
        let config = self.config_bytes.unwrap_or_else(|| config.to_string().into_bytes());
        let mut manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": put(CONFIG, &config), "layers": layers});
        self.manifest.into_iter().for_each(|change| change(&mut manifest));
        let mut root = put(MANIFEST, manifest.to_string().as_bytes());
        root["annotations"] = json!({"org.opencontainers.image.ref.name": "t"});
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [root]});
        std::fs::write(dir.join("index.json"), index.to_string()).expect("an index");
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        digests
    }
}
