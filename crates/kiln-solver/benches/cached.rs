//! Measures what a solve costs when everything is kept: a chain of vertices, one content input in ten.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and stops where it cannot go on")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use kiln_graph::{Edge, VertexId};
use kiln_oci::Digest;
use kiln_report::Silent;
use kiln_solver::{CacheMap, InputKey, KeyParts, MemoryKeys, MemoryResults, Plan, PlanVertex, Solver, Step, Turns};

struct Link {
    digest: Digest,
    inputs: Vec<InputKey>,
}

#[async_trait]
impl Step<u64, std::io::Error> for Link {
    async fn cache_map(&self) -> Result<CacheMap, std::io::Error> {
        let (digest, inputs) = (self.digest.clone(), self.inputs.clone());
        Ok(CacheMap { digest, parts: KeyParts::default(), pinned: true, inputs })
    }
    async fn content_digest(&self, _input: usize, result: &u64) -> Result<Digest, std::io::Error> {
        Ok(Digest::sha256(result.to_le_bytes()))
    }
    async fn run(&self, inputs: Vec<u64>) -> Result<Vec<u64>, std::io::Error> {
        Ok(vec![inputs.iter().sum::<u64>() + 1])
    }
}

fn id(n: usize) -> VertexId {
    VertexId(Digest::sha256(format!("vertex {n}")))
}

fn chain(length: usize) -> Plan<u64, std::io::Error> {
    let mut plan = Plan::new();
    for n in 0..length {
        let how = if n % 10 == 9 { InputKey::Content { selector: "all".into() } } else { InputKey::Definition };
        let input = n.checked_sub(1).map(|input| (Edge { vertex: id(input), output: 0 }, how));
        let (inputs, how) = input.into_iter().unzip();
        let step = Arc::new(Link { digest: Digest::sha256(format!("step {n}")), inputs: how });
        plan.add(id(n), PlanVertex { inputs, step, name: format!("[{n}/{length}] RUN link"), ignore_cache: false });
    }
    plan
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for length in [10, 100, 1000, 10_000] {
        let (keys, results) = (Arc::new(MemoryKeys::default()), Arc::new(MemoryResults::default()));
        let solver = Solver::new(keys, results, Arc::new(Silent), Turns::new(2));
        let (plan, roots) = (chain(length), [Edge { vertex: id(length - 1), output: 0 }]);
        let solve = || {
            let begun = Instant::now();
            runtime.block_on(solver.solve(&plan, &roots)).unwrap();
            begun.elapsed()
        };
        let first = solve();
        let mut times: Vec<Duration> = (0..20).map(|_| solve()).collect();
        times.sort();
        println!("{length:>6} vertices: first {first:>10.2?}, cached {:>10.2?} (median of 20)", times[10]);
    }
}
