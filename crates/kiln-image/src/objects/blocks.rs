//! Large blobs in pieces: cut as they are read, sent several at once, and put together at the end.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt as _};
use kiln_oci::Descriptor;
use reqwest::{Method, Url};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::wire::{Wire, call, with_body, with_header};
use crate::http::Call;
use crate::{BlobReader, BlobSource, Error, Result};

/// What fits into one request. As much is held in memory for each request that is on its way.
pub(super) const PART: u64 = 8 << 20;

/// A blob has no more blocks.
const MOST_BLOCKS: u64 = 50_000;

/// A blob in pieces of one size, counted from 0. One is read when there is a slot for it.
pub(super) fn parts(
    reader: BlobReader,
    size: u64,
    slots: &Arc<Semaphore>,
) -> impl Stream<Item = Result<(u64, Bytes, OwnedSemaphorePermit)>> + Send + use<> {
    let start = (reader, BytesMut::new(), 0_u64);
    let slots = Arc::clone(slots);
    futures::stream::try_unfold(start, move |(mut reader, mut rest, number)| {
        let slots = Arc::clone(&slots);
        async move {
            let slot = slots.acquire_owned().await.expect("nobody closes it");
            while (rest.len() as u64) < size {
                let Some(chunk) = reader.chunk().await? else { break };
                rest.extend_from_slice(&chunk);
            }
            if rest.is_empty() {
                return Ok(None);
            }
            let piece = rest.split_to(rest.len().min(size as usize)).freeze();
            Ok(Some(((number, piece, slot), (reader, rest, number + 1))))
        }
    })
}

/// A blob of Azure's, to be written.
pub(super) struct Target<'a> {
    pub(super) wire: &'a Wire,
    pub(super) doing: &'a str,
    pub(super) url: &'a Url,
    pub(super) slots: &'a Arc<Semaphore>,
}

impl Target<'_> {
    /// Sends a blob, in one request or in blocks.
    pub(super) async fn send(&self, blob: &Descriptor, from: &dyn BlobSource) -> Result<()> {
        let reader = from.fetch(blob).await?;
        if blob.size <= PART {
            let _slot = self.slots.acquire().await.expect("nobody closes it");
            let bytes = reader.bytes(self.doing, PART).await?;
            let put = call(self.doing, Method::PUT, self.url.clone());
            let put = sized(with_header(put, "x-ms-blob-type", "BlockBlob"), bytes.into());
            return self.wire.succeed(put).await.map(drop);
        }
        let list = self.list(self.send_blocks(blob, reader).await?);
        self.wire.succeed(list).await.map(drop)
    }

    async fn send_blocks(&self, blob: &Descriptor, reader: BlobReader) -> Result<Vec<String>> {
        let size = PART.max(blob.size.div_ceil(MOST_BLOCKS));
        let sent = parts(reader, size, self.slots).map_ok(|(number, bytes, slot)| async move {
            let id = STANDARD.encode(format!("{number:08}"));
            let url = with_pairs(self.url, &[("comp", "block"), ("blockid", &id)]);
            self.wire.succeed(sized(call(self.doing, Method::PUT, url), bytes)).await?;
            drop(slot);
            Ok::<_, Error>((number, id))
        });
        let mut blocks: Vec<(u64, String)> = sent.try_buffer_unordered(4).try_collect().await?;
        blocks.sort_unstable();
        Ok(blocks.into_iter().map(|(_, id)| id).collect())
    }

    fn list(&self, blocks: Vec<String>) -> Call {
        let blocks: String = blocks.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{blocks}</BlockList>");
        let url = with_pairs(self.url, &[("comp", "blocklist")]);
        sized(call(self.doing, Method::PUT, url), list.into())
    }
}

/// The length is signed, so that it is said here.
pub(super) fn sized(call: Call, body: Bytes) -> Call {
    let length = body.len().to_string();
    with_body(with_header(call, "content-length", &length), body)
}

/// Adds to a query, and leaves what is signed in it alone.
pub(super) fn with_pairs(url: &Url, pairs: &[(&str, &str)]) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryBlobs;

    #[tokio::test]
    async fn pieces_are_the_blob_and_hold_a_slot_each() {
        let blobs = MemoryBlobs::new();
        let blob = blobs.insert("x", b"0123456789".to_vec());
        let slots = Arc::new(Semaphore::new(4));
        let reader = blobs.fetch(&blob).await.unwrap();
        let pieces: Vec<_> = Box::pin(parts(reader, 4, &slots)).try_collect().await.unwrap();
        let texts: Vec<_> = pieces.iter().map(|(number, bytes, _)| (*number, bytes.as_ref())).collect();
        assert_eq!(texts, [(0, &b"0123"[..]), (1, b"4567"), (2, b"89")]);
        assert_eq!(slots.available_permits(), 1);
    }
}
