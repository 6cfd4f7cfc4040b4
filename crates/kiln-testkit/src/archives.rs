//! Archives made to do harm, and what must come of them.
// tidy: table

use crate::Forge;

const UP: &str = "../../../../../../../../../../../../../..";

/// What must come of an archive.
#[derive(Debug, Clone, Copy)]
pub enum Outcome {
    /// It is refused, for a reason of this kind.
    Refused(&'static str),
    /// The tree there is, as `show` has it.
    Inside(&'static [&'static str]),
}
use Outcome::{Inside, Refused};

/// Makes an archive that is after a directory of the machine.
pub type Make = fn(&str) -> Vec<u8>;

/// They want out of the directory they are unpacked into.
pub const ESCAPES: &[(&str, Make, Outcome)] = &[
    ("dotdot", |c| Forge::new().file(&format!("{UP}{c}/pwn"), "x").end(), Refused("name")),
    ("dotdot in the middle", |c| Forge::new().dir("a").file(&format!("a/{UP}{c}/pwn"), "x").end(), Refused("name")),
    ("dotdot at the end", |_| Forge::new().dir("a/..").end(), Refused("name")),
    ("absolute name", |c| Forge::new().file(&format!("{c}/pwn"), "x").end(), Inside(&["IN/pwn=x"])),
    (
        "link to the host's root",
        |c| Forge::new().link("esc", "/").file(&format!("esc{c}/pwn"), "x").end(),
        Inside(&["esc->/", "IN/pwn=x"]),
    ),
    (
        "absolute link",
        |c| Forge::new().link("esc", c).file("esc/pwn", "x").file("esc/secret", "new").end(),
        Inside(&["esc->C", "IN/pwn=x", "IN/secret=new"]),
    ),
    (
        "relative link",
        |c| Forge::new().dir("a").link("a/b", &format!("{UP}{c}")).file("a/b/pwn", "x").end(),
        Inside(&["a/b->../../../../../../../../../../../../../..C", "IN/pwn=x"]),
    ),
    (
        "chain of links",
        |c| {
            Forge::new()
                .link("s1", "s2")
                .link("s2", "s3/canary")
                .link("s3", &format!("{c}/.."))
                .file("s1/pwn", "x")
                .end()
        },
        Inside(&["s1->s2", "s2->s3/canary", "s3->C/..", "IN/pwn=x"]),
    ),
    ("loop of links", |_| Forge::new().link("a", "b").link("b", "a").file("a/x", "x").end(), Refused("io")),
    (
        "file over its link",
        |c| Forge::new().link("f", &format!("{c}/secret")).file("f", "new").end(),
        Inside(&["f=new"]),
    ),
    (
        "directory over its link",
        |c| Forge::new().link("d", c).head(b'5', b"d", |h| h.octal(100, 8, 0o777)).file("d/x", "x").end(),
        Inside(&["d/x=x"]),
    ),
    ("root as a link", |c| Forge::new().link(".", c).file("pwn", "x").end(), Refused("name")),
    ("root as a link, with a slash", |c| Forge::new().link("./", c).file("./pwn", "x").end(), Refused("name")),
    ("root as a file", |_| Forge::new().file("/", "").end(), Inside(&[])),
    (
        "hard link to a host file",
        |c| Forge::new().hardlink("h", &format!("{c}/secret")).file("h", "new").end(),
        Refused("hardlink"),
    ),
    ("hard link upwards", |c| Forge::new().hardlink("h", &format!("{UP}{c}/secret")).end(), Refused("name")),
    (
        "hard link through a link",
        |c| Forge::new().link("s", c).hardlink("h", "s/secret").file("h", "new").end(),
        Refused("hardlink"),
    ),
    (
        "hard link with a mode through a link",
        |c| {
            Forge::new()
                .link("s", &format!("{c}/secret"))
                .head(b'1', b"h", |h| {
                    h.put(157, b"s");
                    h.octal(100, 8, 0o6777);
                })
                .end()
        },
        Inside(&["h->C/secret", "s->C/secret"]),
    ),
    (
        "hard link to a link, then written",
        |c| Forge::new().link("s", &format!("{c}/secret")).hardlink("h", "s").file("h", "new").end(),
        Inside(&["h=new", "s->C/secret"]),
    ),
    ("hard link to a directory", |_| Forge::new().dir("d").hardlink("h", "d").end(), Refused("name")),
    ("hard link to nothing", |_| Forge::new().hardlink("h", "later").file("later", "x").end(), Refused("hardlink")),
    ("hard link to itself", |_| Forge::new().file("x", "x").hardlink("x", "x").end(), Inside(&["x=x"])),
    ("file in a file", |_| Forge::new().file("x", "x").file("x/y", "y").end(), Refused("name")),
    (
        "the same name as everything",
        |c| Forge::new().file("x", "1").link("x", c).file("x/pwn", "p").dir("x").file("x/y", "y").file("x", "2").end(),
        Inside(&["IN/pwn=p", "x=2"]),
    ),
];

/// They delete what is not theirs.
pub const WHITEOUTS: &[(&str, Make, Outcome)] = &[
    ("upwards", |c| Forge::new().file(&format!("{UP}{c}/.wh.secret"), "").end(), Refused("name")),
    ("of `.`", |_| Forge::new().file(".wh..", "").end(), Refused("name")),
    ("of `..`", |_| Forge::new().file(".wh...", "").end(), Refused("name")),
    ("of `..` below", |_| Forge::new().dir("a").file("a/.wh...", "").end(), Refused("name")),
    ("of nothing", |_| Forge::new().file(".wh.", "").end(), Refused("name")),
    ("as a directory", |c| Forge::new().file(&format!(".wh.{c}/secret"), "").end(), Refused("name")),
    ("through a link", |c| Forge::new().link("d", c).file("d/.wh.secret", "").end(), Inside(&["d->C", "IN/secret?"])),
    ("opaque, through a link", |c| Forge::new().link("d", c).file("d/.wh..wh..opq", "").end(), Inside(&["d->C"])),
    ("data of other drivers", |_| Forge::new().file(".wh..wh.plnk/1", "").end(), Refused("name")),
    ("marks of other drivers", |_| Forge::new().file(".wh..wh.aufs", "").end(), Inside(&[])),
];

/// Readers disagree on them, or choke on them; under small limits: 1 MiB, 1000 entries, 64 deep, paths of 1024 bytes.
pub const TORTURE: &[(&str, Make, Outcome)] = &[
    (
        "sizes that disagree",
        |_| {
            let inner = Forge::new().file("smuggled", "x").cut();
            let size = inner.len().to_string();
            Forge::new().pax(&[("size", size.as_bytes())]).head(b'0', b"outer", |_| ()).body(&inner).end()
        },
        Inside(&[]),
    ),
    (
        "a link with content",
        |_| {
            let inner = Forge::new().file("smuggled", "x").cut();
            Forge::new()
                .head(b'2', b"l", |h| {
                    h.put(157, b"t");
                    h.octal(124, 12, 1024);
                })
                .raw(&inner)
                .end()
        },
        Refused("malformed"),
    ),
    (
        "a directory with content",
        |_| Forge::new().head(b'5', b"d", |h| h.octal(124, 12, 512)).body(b"x").end(),
        Refused("malformed"),
    ),
    (
        "negative size",
        |_| Forge::new().head(b'0', b"f", |h| h.put(124, &[0xff; 12])).body(b"x").end(),
        Refused("malformed"),
    ),
    ("huge size", |_| Forge::new().head(b'0', b"f", |h| h.octal(124, 12, 1 << 32)).body(b"x").end(), Refused("limit")),
    ("size in letters", |_| Forge::new().head(b'0', b"f", |h| h.put(124, b"12z")).end(), Refused("malformed")),
    (
        "wrong checksum",
        |_| {
            let mut bytes = Forge::new().file("f", "x").end();
            bytes[0] = b'g';
            bytes
        },
        Refused("malformed"),
    ),
    (
        "cut in the content",
        |_| {
            let mut bytes = Forge::new().file("f", "x".repeat(2000)).cut();
            bytes.truncate(700);
            bytes
        },
        Refused("truncated"),
    ),
    ("cut in a header", |_| Forge::new().file("f", "x").raw(&[1; 100]).cut(), Refused("truncated")),
    ("content behind the end", |_| Forge::new().raw(&[0; 512]).file("f", "x").end(), Refused("malformed")),
    (
        "a record that does not add up",
        |_| Forge::new().extended(b'x', b"99 path=x\n").file("f", "x").end(),
        Refused("malformed"),
    ),
    ("a zero byte in a name", |_| Forge::new().pax(&[("path", b"a\0b")]).file("f", "x").end(), Refused("malformed")),
    (
        "two extended headers",
        |_| Forge::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("f", "x").end(),
        Refused("malformed"),
    ),
    (
        "two long names",
        |_| Forge::new().extended(b'L', b"a\0").pax(&[("path", b"b")]).file("f", "x").end(),
        Refused("malformed"),
    ),
    ("an extended header for nothing", |_| Forge::new().pax(&[("path", b"a")]).end(), Refused("malformed")),
    (
        "an endless extended header",
        |_| Forge::new().extended(b'x', &[b' '; 70_000]).file("f", "x").end(),
        Refused("limit"),
    ),
    (
        "a global header that resizes",
        |_| Forge::new().extended(b'g', b"11 size=99\n").file("f", "x").end(),
        Refused("malformed"),
    ),
    ("a global comment", |_| Forge::new().extended(b'g', b"13 comment=x\n").file("f", "x").end(), Inside(&["f=x"])),
    (
        "an owner out of range",
        |_| Forge::new().pax(&[("uid", b"4294967296")]).file("f", "x").end(),
        Refused("malformed"),
    ),
    ("an unknown type", |_| Forge::new().head(b'V', b"volume", |_| ()).end(), Refused("type")),
    ("a link to nothing", |_| Forge::new().head(b'2', b"l", |_| ()).end(), Refused("malformed")),
    (
        "too deep",
        |_| Forge::new().pax(&[("path", ("d/".repeat(100) + "f").as_bytes())]).file("f", "x").end(),
        Refused("limit"),
    ),
    ("too long", |_| Forge::new().pax(&[("path", &[b'n'; 5000])]).file("f", "x").end(), Refused("limit")),
    (
        "a name the filesystem cannot hold",
        |_| Forge::new().pax(&[("path", &[b'n'; 256])]).file("f", "x").end(),
        Refused("io"),
    ),
    ("too many", |_| (0..1001).fold(Forge::new(), |f, n| f.file(&format!("m/{n}"), "")).end(), Refused("limit")),
    (
        "too much in pieces",
        |_| (0..9).fold(Forge::new(), |f, n| f.file(&n.to_string(), "x".repeat(130_000))).end(),
        Refused("limit"),
    ),
    (
        "a huge sparse file",
        |_| {
            Forge::new()
                .head(b'S', b"f", |h| {
                    h.octal(386, 12, 0);
                    h.octal(398, 12, 5);
                    h.put(483, &[0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0]);
                    h.octal(124, 12, 5);
                })
                .body(b"hello")
                .end()
        },
        Refused("limit"),
    ),
    (
        "overlapping pieces",
        |_| {
            Forge::new()
                .head(b'S', b"f", |h| {
                    for (at, value) in [(386, 0), (398, 3), (410, 2), (422, 2)] {
                        h.octal(at, 12, value);
                    }
                    h.octal(483, 12, 100);
                    h.octal(124, 12, 5);
                })
                .body(b"hello")
                .end()
        },
        Refused("malformed"),
    ),
    (
        "a sparse map that lies",
        |_| Forge::new().pax(&[("GNU.sparse.map", b"0,5000"), ("GNU.sparse.size", b"100")]).file("f", "x").end(),
        Refused("malformed"),
    ),
    (
        "a sparse map without end",
        |_| {
            let records: [(&str, &[u8]); 3] =
                [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100")];
            Forge::new().pax(&records).file("f", "9999999\n1\n").end()
        },
        Refused("malformed"),
    ),
    (
        "the overlay's own attribute",
        |_| Forge::new().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/x")]).dir("d").end(),
        Refused("overlay"),
    ),
    (
        "the same for users",
        |_| Forge::new().pax(&[("SCHILY.xattr.user.overlay.opaque", b"y")]).dir("d").end(),
        Refused("overlay"),
    ),
    ("the overlay's own node", |_| Forge::new().device(b'3', "gone", 0, 0).end(), Refused("overlay")),
    (
        "names for a terminal",
        |_| Forge::new().file("a\nb", "").file("\x1b[2J", "").file("-rf", "").end(),
        Inside(&["\x1b[2J=", "-rf=", "a\nb="]),
    ),
];
