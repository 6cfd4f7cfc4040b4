//! What the kernel grants a step, told by a program that tries.

use kiln_testkit::{CONFINED, ForgedImage, compile_probe};

use super::attack::{Attack, printed};

#[test]
fn a_step_is_nothing_and_may_nothing_that_reaches_the_machine() {
    for attack in Attack::by_everybody() {
        attack.image(ForgedImage::busybox());
        let Some(()) = compile_probe(&attack.project.context().join("probe")) else { return };
        let probe = "RUN [\"/probe\"]\n";
        let user = if attack.has_users() { format!("USER 1000\n{probe}") } else { String::new() };
        let run = attack.build(&format!("FROM evil\nCOPY probe /probe\n{probe}{user}")).ok();
        let told = printed(&run);
        let (root, user) = told.split_at(CONFINED.lines().count());
        assert_eq!(root.join("\n"), CONFINED.trim_end());
        // Nobody but root has a capability, and else all is the same.
        let without = |line: &str| match line.split_once('\t') {
            Some((name @ ("CapPrm:" | "CapEff:"), _)) => format!("{name}\t{:016x}", 0),
            _ => line.replace("user: 0", "user: 1000"),
        };
        let expected: Vec<String> = CONFINED.lines().filter(|_| attack.has_users()).map(without).collect();
        assert_eq!(user.join("\n"), expected.join("\n"));
    }
}
