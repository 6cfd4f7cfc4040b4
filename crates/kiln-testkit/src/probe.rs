//! A program that says what a confined process is and may, and what it has to say.

use std::path::Path;

use crate::Tool;

const SOURCE: &str = include_str!("../probe/probe.c");

/// What the probe prints in a step of whoever builds, wherever kiln confines it.
pub const CONFINED: &str = include_str!("../probe/confined.txt");

/// Compiles it to a static program; `None`, aloud, where no compiler can.
pub fn compile_probe(to: &Path) -> Option<()> {
    let source = to.with_extension("c");
    std::fs::write(&source, SOURCE).expect("a file");
    let compiler = Tool::find("cc")?;
    let [to, from] = [to, &source].map(|path| path.to_str().expect("a test's paths are text"));
    let compiled = compiler.run(&["-static", "-O1", "-w", "-o", to, from]);
    std::fs::remove_file(&source).expect("it was written");
    compiled.map_err(|error| crate::skip(&format!("no C compiler that links statically: {error}"))).ok().map(drop)
}
