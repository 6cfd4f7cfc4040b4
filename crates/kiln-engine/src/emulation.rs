//! Which platforms steps can run on here: the machine's own and its like, and those the kernel has an emulator for.

use kiln_oci::Platform;
use kiln_report::{Failure, FailureKind};
use kiln_sys::root::Root;

use crate::job::Result;

/// Where the emulators that are registered are seen.
const REGISTRY: &str = "/proc/sys/fs/binfmt_misc";

/// No entry has more bytes.
const ENTRY: u64 = 64 << 10;

/// How programs for a platform run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Running {
    /// By themselves.
    Natively,
    /// By an emulator that containers have.
    Emulated,
    /// Not in containers, since this emulator is not kept open for them.
    Unfixed(String),
    /// Not at all.
    Not,
}

/// Fails when a program for a platform would not run: before it is tried, and with the way out.
pub(crate) fn check(platform: &Platform) -> Result<()> {
    match running(platform) {
        Running::Natively | Running::Emulated => Ok(()),
        Running::Unfixed(interpreter) => Err(unfixed(platform, &interpreter)),
        Running::Not => Err(missing(platform)),
    }
}

/// Finds out how.
pub(crate) fn running(platform: &Platform) -> Running {
    if is_native(platform, &Platform::host()) {
        return Running::Natively;
    }
    let entries = registered();
    let Some(header) = header(&platform.architecture) else { return Running::Not };
    // The kernel asks the last one that was registered first, and files do not tell that order: any that works will do.
    let fitting: Vec<&Entry> = entries.iter().filter(|entry| entry.is_enabled && entry.fits(&header)).collect();
    match fitting.first() {
        None => Running::Not,
        Some(_) if fitting.iter().any(|entry| entry.is_fixed) => Running::Emulated,
        Some(first) => Running::Unfixed(first.interpreter.clone()),
    }
}

fn missing(platform: &Platform) -> Failure {
    let host = Platform::host();
    let message = format!("cannot run steps for `{platform}` on `{host}`: no emulator is registered for them");
    let name = &platform.architecture;
    Failure::new(FailureKind::Environment, message)
        .hint(format!(
            "install one: Debian's and Ubuntu's package `qemu-user-static`, or `docker run --privileged --rm \
             tonistiigi/binfmt --install {name}`"
        ))
        .hint(
            "run them here instead, in a stage `FROM --platform=$BUILDPLATFORM`, if what they run can work for others",
        )
}

fn unfixed(platform: &Platform, interpreter: &str) -> Failure {
    let message = format!(
        "cannot run steps for `{platform}`: the emulator `{interpreter}` is registered without the flag `F`, so that \
         containers do not have it"
    );
    Failure::new(FailureKind::Environment, message)
        .hint("register it with `F`, as Debian's and Ubuntu's package `qemu-user-static` does")
}

/// Whether the processor runs programs for a platform itself.
#[expect(clippy::disallowed_methods, reason = "the kernel's own files, by names that are written here")]
fn is_native(platform: &Platform, host: &Platform) -> bool {
    let variant = |default: u32| {
        let number = platform.variant.as_deref().and_then(|variant| variant.strip_prefix('v')?.parse().ok());
        number.unwrap_or(default)
    };
    match (host.architecture.as_str(), platform.architecture.as_str()) {
        _ if host.os != platform.os => false,
        ("amd64", "amd64") => variant(1) <= level(),
        // Only a kernel that runs 32-bit programs has the setting.
        ("amd64", "386") => std::path::Path::new("/proc/sys/abi/vsyscall32").exists(),
        ("arm64", "arm") => kiln_sys::personality::runs_32_bit(),
        (host, wanted) => host == wanted,
    }
}

/// The level of the x86-64 instruction set that the processor has.
#[cfg(target_arch = "x86_64")]
fn level() -> u32 {
    macro_rules! has {
        ($($feature:tt),+) => { $(std::is_x86_feature_detected!($feature))&&+ };
    }
    let has_v2 = has!("sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "cmpxchg16b");
    let has_v3 = has_v2 && has!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
    let has_v4 = has_v3 && has!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
    1 + u32::from(has_v2) + u32::from(has_v3) + u32::from(has_v4)
}

#[cfg(not(target_arch = "x86_64"))]
fn level() -> u32 {
    0
}

/// What the beginning of a program for an architecture looks like (elf(5)).
fn header(architecture: &str) -> Option<[u8; 64]> {
    const WIDE: (u8, u8) = (2, 1);
    const NARROW: (u8, u8) = (1, 1);
    const WIDE_BIG: (u8, u8) = (2, 2);
    let ((class, order), machine): ((u8, u8), u16) = match architecture {
        "386" => (NARROW, 3),
        "amd64" => (WIDE, 62),
        "arm" => (NARROW, 40),
        "arm64" => (WIDE, 183),
        "riscv64" => (WIDE, 243),
        "loong64" => (WIDE, 258),
        "ppc64le" => (WIDE, 21),
        "ppc64" => (WIDE_BIG, 21),
        "s390x" => (WIDE_BIG, 22),
        "mips64le" => (WIDE, 8),
        "mips64" => (WIDE_BIG, 8),
        _ => return None,
    };
    let half = |value: u16| if order == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
    let mut header = [0; 64];
    header[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1]);
    header[16..18].copy_from_slice(&half(2));
    header[18..20].copy_from_slice(&half(machine));
    header[if order == 1 { 20 } else { 23 }] = 1;
    Some(header)
}

/// A program that the kernel starts for files of a kind (Documentation/admin-guide/binfmt-misc.rst).
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    is_enabled: bool,
    interpreter: String,
    /// Whether it was opened when it was registered, so that it is there for containers.
    is_fixed: bool,
    offset: usize,
    magic: Vec<u8>,
    mask: Vec<u8>,
}

impl Entry {
    fn parse(text: &str) -> Self {
        let mut entry = Self::default();
        for line in text.lines() {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "enabled" => entry.is_enabled = true,
                "interpreter" => value.clone_into(&mut entry.interpreter),
                "flags:" => entry.is_fixed = value.contains('F'),
                "offset" => entry.offset = value.parse().unwrap_or(usize::MAX),
                "magic" => entry.magic = bytes(value),
                "mask" => entry.mask = bytes(value),
                _ => {}
            }
        }
        entry
    }

    fn fits(&self, header: &[u8]) -> bool {
        let Some(found) = header.get(self.offset..).and_then(|rest| rest.get(..self.magic.len())) else { return false };
        let mask = |at: usize| self.mask.get(at).copied().unwrap_or(0xff);
        !self.magic.is_empty() && found.iter().zip(&self.magic).enumerate().all(|(at, (a, b))| (a ^ b) & mask(at) == 0)
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs =
        (0..hex.len() / 2).map(|at| hex.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()));
    pairs.collect::<Option<_>>().unwrap_or_default()
}

/// All that is registered. It counts also where nobody mounted the list of it.
fn registered() -> Vec<Entry> {
    let here = Root::open_ambient(REGISTRY).map(|root| read(&root)).unwrap_or_default();
    if !here.is_empty() {
        return here;
    }
    let mount = kiln_sys::mount::binfmt_detached();
    mount.map(|mount| read(&Root::new(mount))).unwrap_or_default()
}

fn read(root: &Root) -> Vec<Entry> {
    let Ok(files) = root.read_dir("/") else { return Vec::new() };
    let names = files.into_iter().map(|file| file.name).filter(|name| name != "register" && name != "status");
    let text = |name| String::from_utf8(root.read_to_limit(name, ENTRY).ok()?).ok();
    names.filter_map(text).map(|text| Entry::parse(&text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn an_entry_fits_programs_of_its_architecture_only() {
        let entry = Entry::parse(ARM64);
        assert!(entry.is_enabled && entry.is_fixed && entry.interpreter.ends_with("aarch64-binfmt-P"));
        let fits = |name: &str| entry.fits(&header(name).unwrap());
        assert!(fits("arm64"));
        for other in ["386", "amd64", "arm", "riscv64", "loong64", "ppc64le", "ppc64", "s390x", "mips64le", "mips64"] {
            assert!(!fits(other), "{other}");
        }
        let script = Entry::parse("enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n");
        assert!(!script.fits(&header("arm64").unwrap()), "what goes by name is for no architecture");
        assert!(!Entry::parse("disabled\n").is_enabled);
        assert!(!Entry::parse("enabled\nflags: OC\n").is_fixed);
    }

    #[test]
    fn s390x_has_its_bytes_the_other_way_round() {
        let entry = Entry::parse(
            "enabled\ninterpreter x\nflags: F\noffset 0\nmagic 7f454c4602020100000000000000000000020016\n\
             mask ffffffffffffff00fffffffffffffffffffeffff\n",
        );
        assert!(entry.fits(&header("s390x").unwrap()) && !entry.fits(&header("arm64").unwrap()));
    }

    #[test]
    fn a_machine_runs_its_like_itself() {
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        for (wanted, host, is) in [
            ("linux/amd64", "linux/amd64", cfg!(target_arch = "x86_64")),
            ("linux/amd64/v32", "linux/amd64", false),
            ("linux/arm64", "linux/amd64", false),
            ("linux/arm/v7", "linux/arm64", true),
            ("linux/arm64/v9", "linux/arm64", true),
            ("linux/riscv64", "linux/riscv64", true),
        ] {
            assert_eq!(is_native(&platform(wanted), &platform(host)), is, "{wanted} on {host}");
        }
    }

    #[test]
    fn what_nobody_emulates_is_told_with_a_way_out() {
        let failure = check(&Platform::linux("vax")).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Environment);
        assert!(failure.message.contains("`linux/vax`") && failure.hints[0].contains("`qemu-user-static`"));
    }
}
