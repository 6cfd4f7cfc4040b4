//! From verdicts to BPF: a binary search over ranges of call numbers.
//!
//! A list of comparisons, one a call, would do the same; but the kernel runs the filter once for every number when it
//! is loaded (to remember which are always allowed), and that is most of the time loading takes.

use libc::sock_filter;

use super::profile::{ENOSYS, EPERM, Verdict};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

type Code = Vec<sock_filter>;

/// Compiles verdicts, of which the index is the call's number.
pub(super) fn program(verdicts: &[Verdict]) -> Code {
    let mut code = vec![step(LOAD, ARCH), branch(IF_EQUAL, ARCHITECTURE, 1, 0), fail(ENOSYS), step(LOAD, NUMBER)];
    code.extend(search(&by_range(verdicts)));
    code
}

/// Joins neighbours: each range begins at its number and ends before the next one's.
fn by_range(verdicts: &[Verdict]) -> Vec<(u32, Code)> {
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    for (number, verdict) in (0..).zip(verdicts) {
        if ranges.last().is_none_or(|(_, last)| last != verdict) {
            ranges.push((number, *verdict));
        }
    }
    let beyond = u32::try_from(verdicts.len()).expect("there are some hundred system calls");
    ranges.push((beyond, Verdict::Fail(ENOSYS)));
    ranges.into_iter().map(|(start, verdict)| (start, leaf(verdict))).collect()
}

fn leaf(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Allow => vec![allow()],
        Verdict::Fail(errno) => vec![fail(errno)],
        Verdict::AllowIn { argument, ranges } => {
            let mut code = vec![load_argument(argument)];
            code.extend(search(&membership(ranges)));
            code
        }
        Verdict::AllowWithout { argument, bits } => {
            vec![load_argument(argument), branch(IF_ANY_BIT, bits, 1, 0), allow(), fail(EPERM)]
        }
    }
}

/// Turns ranges that are allowed into ranges that cover all values.
fn membership(allowed: &[(u32, u32)]) -> Vec<(u32, Code)> {
    let mut ranges: Vec<(u32, Code)> = vec![(0, vec![fail(EPERM)])];
    for (first, last) in allowed {
        if ranges.last().is_some_and(|(start, _)| start == first) {
            ranges.pop();
        }
        ranges.push((*first, vec![allow()]));
        if let Some(after) = last.checked_add(1) {
            ranges.push((after, vec![fail(EPERM)]));
        }
    }
    ranges
}

/// Finds the range the accumulator lies in, and goes on with its code.
fn search(ranges: &[(u32, Code)]) -> Code {
    let [_, _, ..] = ranges else {
        return ranges.first().map(|(_, code)| code.clone()).unwrap_or_default();
    };
    let (below, above) = ranges.split_at(ranges.len() / 2);
    let start = above.first().map_or(0, |(start, _)| *start);
    let (below, above) = (search(below), search(above));
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![branch(IF_AT_LEAST, start, skip, 0)],
        // A conditional jump reaches 255 instructions; an unconditional one all of them.
        Err(_) => {
            let skip = u32::try_from(below.len()).expect("a filter has less than 4096 instructions");
            vec![branch(IF_AT_LEAST, start, 0, 1), step(JUMP, skip)]
        }
    };
    code.extend(below);
    code.extend(above);
    code
}

/// Loads the low half of an argument: the kernel's own parameters are 32-bit integers, or flags in the low half.
fn load_argument(argument: u8) -> sock_filter {
    let low = if cfg!(target_endian = "little") { 0 } else { 4 };
    step(LOAD, ARGUMENTS + 8 * u32::from(argument) + low)
}

fn allow() -> sock_filter {
    step(RETURN, libc::SECCOMP_RET_ALLOW)
}

fn fail(errno: u16) -> sock_filter {
    step(RETURN, libc::SECCOMP_RET_ERRNO | u32::from(errno))
}

fn step(code: u16, k: u32) -> sock_filter {
    branch(code, k, 0, 0)
}

fn branch(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use rustix::thread::CapabilitySet;

    use super::super::profile::verdicts;
    use super::*;

    struct Call {
        arch: u32,
        number: u32,
        argument: u64,
    }

    /// Runs a filter as the kernel would.
    fn run(program: &[sock_filter], call: &Call) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        for _ in 0..program.len() {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |condition: bool| usize::from(if condition { jt } else { jf });
            match code {
                LOAD => {
                    accumulator = match k {
                        NUMBER => call.number,
                        ARCH => call.arch,
                        at if at >= ARGUMENTS => call.argument as u32,
                        other => panic!("loads {other}"),
                    }
                }
                JUMP => at += k as usize,
                IF_EQUAL => at += jump(accumulator == k),
                IF_AT_LEAST => at += jump(accumulator >= k),
                IF_ANY_BIT => at += jump(accumulator & k != 0),
                RETURN => return k,
                other => panic!("instruction {other}"),
            }
        }
        panic!("the filter does not end");
    }

    fn expected(verdict: Verdict, argument: u64) -> u32 {
        let low = argument as u32;
        let allowed = match verdict {
            Verdict::Allow => true,
            Verdict::Fail(errno) => return libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Verdict::AllowIn { ranges, .. } => ranges.iter().any(|(first, last)| (*first..=*last).contains(&low)),
            Verdict::AllowWithout { bits, .. } => low & bits == 0,
        };
        if allowed { libc::SECCOMP_RET_ALLOW } else { libc::SECCOMP_RET_ERRNO | u32::from(EPERM) }
    }

    #[test]
    fn the_program_says_what_the_profile_says() {
        let mut arguments: Vec<u64> = (0..64).collect();
        arguments.extend([0x8, 0x2_0000, 0x2_0008, 0x2_0009, 0xffff_ffff, 0xffff_fffe, 0x1_0000_0026, 0x1000_0000]);
        arguments.extend([libc::TIOCSTI, libc::TIOCLINUX].iter().flat_map(|request| request - 1..=request + 1));
        arguments.extend((0..32).map(|bit| 1u64 << bit));
        for granted in [CapabilitySet::empty(), crate::caps::SANDBOX, CapabilitySet::all()] {
            let verdicts = verdicts(granted);
            let program = program(&verdicts);
            assert!(program.len() < 1000, "{} instructions", program.len());
            for (number, verdict) in (0..).zip(&verdicts) {
                for argument in &arguments {
                    let call = Call { arch: ARCHITECTURE, number, argument: *argument };
                    assert_eq!(run(&program, &call), expected(*verdict, *argument), "{number} {argument:#x}");
                }
            }
        }
    }

    #[test]
    fn foreign_abis_and_unknown_numbers_do_not_exist() {
        let program = program(&verdicts(crate::caps::SANDBOX));
        let nosys = libc::SECCOMP_RET_ERRNO | u32::from(ENOSYS);
        for (arch, number) in [(0x4000_0003, 1), (0x4000_0028, 1), (ARCHITECTURE, 0x4000_0001), (ARCHITECTURE, 9999)] {
            assert_eq!(run(&program, &Call { arch, number, argument: 0 }), nosys, "{arch:#x} {number:#x}");
        }
        assert_eq!(run(&program, &Call { arch: ARCHITECTURE, number: u32::MAX, argument: 0 }), nosys);
    }

    #[test]
    fn nobody_types_into_a_terminal_for_another() {
        let program = program(&verdicts(crate::caps::SANDBOX));
        let ioctl = |request: u64| {
            let number = libc::SYS_ioctl as u32;
            run(&program, &Call { arch: ARCHITECTURE, number, argument: request }) == libc::SECCOMP_RET_ALLOW
        };
        assert!(ioctl(libc::TCGETS) && ioctl(libc::TIOCGWINSZ) && ioctl(u64::from(u32::MAX)));
        assert!(!ioctl(libc::TIOCSTI) && !ioctl(libc::TIOCLINUX) && !ioctl((1 << 32) + libc::TIOCSTI));
    }

    #[test]
    fn the_families_a_container_has_no_use_for_are_denied() {
        let program = program(&verdicts(crate::caps::SANDBOX));
        let socket = |family: u64| {
            let number = libc::SYS_socket as u32;
            run(&program, &Call { arch: ARCHITECTURE, number, argument: family }) == libc::SECCOMP_RET_ALLOW
        };
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK, libc::AF_PACKET] {
            assert!(socket(family as u64), "{family}");
        }
        for family in [0, libc::AF_ALG as u64, libc::AF_VSOCK as u64, 46, 1 << 31, 0x1_0000_0000 + libc::AF_ALG as u64]
        {
            assert!(!socket(family), "{family}");
        }
    }
}
