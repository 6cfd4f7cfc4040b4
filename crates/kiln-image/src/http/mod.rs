//! The one HTTP client of kiln: guarded, patient, and set up only when the first request is made.

mod answer;
mod client;
mod download;
mod guard;
mod retry;
mod transfer;

pub use client::{ClientOptions, HttpClient};
pub use download::{Download, DownloadRequest, Fetched};
pub use retry::RetryPolicy;

pub(crate) use answer::{answer_bytes, status_error, words};
pub(crate) use client::{
    AMAZON_TOKEN, Call, Reply, Trust, authority, host_of, is_worth_retrying, location, network, refuse, same_origin,
    stalled,
};
pub(crate) use guard::is_loopback;
pub(crate) use retry::{Patience, is_passing, parse_date};
pub(crate) use transfer::{Opener, Transfer};
