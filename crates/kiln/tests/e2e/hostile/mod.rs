//! Strangers' images, contexts, repositories and steps that want out: none reaches the machine, none leaves anything.

mod archives;
mod attack;
mod confinement;
mod contexts;
mod documents;
mod exhaustion;
mod machine;
mod mounts;
mod roots;
mod sources;
mod state;
mod steps;
mod swaps;
mod trees;
