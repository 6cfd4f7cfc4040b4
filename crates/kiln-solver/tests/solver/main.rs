//! The solver's claims, over fakes that count calls: no disk, no container.
#![allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod caching;
mod contents;
mod crowds;
mod cutoff;
mod fakes;
mod forecasting;
mod graphs;
mod overlapping;
mod running;
mod saying;
mod sharing;
mod stopping;
mod turns;
