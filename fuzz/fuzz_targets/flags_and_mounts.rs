//! Any flag of RUN, COPY and ADD, and any mount, is read or refused at a place in the file.
#![no_main]

use kiln_dockerfile::instruction::{Command, Mount};
use kiln_dockerfile::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &str)| {
    let (kind, flags) = input;
    let text = match kind % 5 {
        0 => format!("FROM a\nRUN --mount={flags} x\n"),
        1 => format!("FROM a\nRUN --{flags} x\n"),
        2 => format!("FROM a\nCOPY --{flags} a /\n"),
        3 => format!("FROM a\nADD --{flags} a /\n"),
        _ => format!("FROM a\nHEALTHCHECK --{flags} CMD x\n"),
    };
    let (file, diagnostics) = parse(&text);
    diagnostics.iter().for_each(|diagnostic| assert!(text.get(diagnostic.span.range()).is_some()));
    for instruction in file.instructions() {
        let Some(Command::Run(run)) = &instruction.command else { continue };
        for flag in &run.mounts {
            for error in Mount::as_written(flag).err().into_iter().flatten() {
                assert!(text.get(error.span.range()).is_some() && !error.message.is_empty());
            }
        }
    }
});
