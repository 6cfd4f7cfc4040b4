//! Devices of the machine for steps, by the Container Device Interface: which there are, which a step may have.

mod edits;
mod spec;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

use kiln_graph::llb::CdiDevice;
use kiln_report::{Failure, FailureKind};

pub(crate) use edits::{DeviceEdits, insecure_devices};
use spec::{Annotations, Edits, Spec};

use crate::job::Result;
use crate::request::Entitlement;

/// Annotations by which a device says what it is, and that it needs no permission; BuildKit's.
const CLASS: &str = "org.mobyproject.buildkit.device.class";
const AUTO_ALLOW: &str = "org.mobyproject.buildkit.device.autoallow";

/// The devices of the machine. They are looked for when a step first wants one.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    dirs: Vec<PathBuf>,
    allowed: Vec<Entitlement>,
    known: OnceLock<BTreeMap<String, Device>>,
}

/// A device, with what its whole class asks for.
#[derive(Debug, Clone)]
struct Device {
    annotations: Annotations,
    edits: Vec<Edits>,
}

impl Devices {
    /// Devices described in these directories, of which steps may have what is allowed.
    pub(crate) fn new(dirs: Vec<PathBuf>, allowed: Vec<Entitlement>) -> Self {
        Self { dirs, allowed, known: OnceLock::new() }
    }

    /// What a step gets for the devices it names.
    pub(crate) fn for_step(&self, wanted: &[CdiDevice]) -> Result<DeviceEdits> {
        if wanted.is_empty() {
            return Ok(DeviceEdits::default());
        }
        let mut granted: Vec<String> = Vec::new();
        for device in wanted {
            for name in self.choose(device)? {
                if !granted.contains(&name) {
                    granted.push(name);
                }
            }
        }
        let known = self.known()?;
        let edits = granted.iter().filter_map(|name| known.get(name)).flat_map(|device| device.edits.clone());
        DeviceEdits::of(edits)
    }

    /// The devices that are meant and may be had.
    fn choose(&self, wanted: &CdiDevice) -> Result<Vec<String>> {
        if let Some(name) = self.alias(&wanted.name) {
            return self.find(name, wanted.optional);
        }
        let found = self.find(&wanted.name, wanted.optional)?;
        let known = self.known()?;
        let forbidden = found.iter().find(|name| !known[*name].is_auto_allowed() && !self.is_allowed(name));
        match forbidden {
            None => Ok(found),
            Some(name) => {
                let message = format!("this step wants the device `{name}`, which was not allowed");
                let hint = format!("allow it with `--allow device={name}`");
                Err(Failure::new(FailureKind::Build, message).hint(hint))
            }
        }
    }

    fn alias(&self, wanted: &str) -> Option<&str> {
        self.allowed.iter().find_map(|allowed| match allowed {
            Entitlement::Device { name, alias: Some(alias) } if alias == wanted => Some(name.as_str()),
            _ => None,
        })
    }

    fn is_allowed(&self, device: &str) -> bool {
        self.allowed.iter().any(|allowed| match allowed {
            Entitlement::AllDevices => true,
            Entitlement::Device { name, alias: None } => {
                self.known().is_ok_and(|known| matching(known, name).iter().any(|found| found == device))
            }
            _ => false,
        })
    }

    fn find(&self, name: &str, is_optional: bool) -> Result<Vec<String>> {
        let known = self.known()?;
        let found = matching(known, name);
        if !found.is_empty() || is_optional {
            return Ok(found);
        }
        let failure = Failure::new(FailureKind::Build, format!("the machine has no device `{name}`"));
        let names: Vec<String> = known.keys().map(|name| format!("`{name}`")).collect();
        let dirs: Vec<String> = self.dirs.iter().map(|dir| format!("`{}`", dir.display())).collect();
        Err(match names.is_empty() {
            true => failure.hint(format!("describe it in {}: there are no devices yet", dirs.join(" or "))),
            false => failure.hint(format!("name one it has: {}", names.join(", "))),
        })
    }

    fn known(&self) -> Result<&BTreeMap<String, Device>> {
        if let Some(known) = self.known.get() {
            return Ok(known);
        }
        let mut known = BTreeMap::new();
        for spec in spec::read_all(&self.dirs)? {
            add(&mut known, spec);
        }
        Ok(self.known.get_or_init(|| known))
    }
}

impl Device {
    fn is_auto_allowed(&self) -> bool {
        let value = self.annotations.get(AUTO_ALLOW).map(String::as_str);
        matches!(value, Some("1" | "t" | "T" | "true" | "TRUE" | "True"))
    }
}

/// Later descriptions of a device replace earlier ones.
fn add(known: &mut BTreeMap<String, Device>, spec: Spec) {
    for device in spec.devices {
        let mut annotations = spec.annotations.clone();
        annotations.extend(device.annotations);
        let edits = vec![spec.container_edits.clone(), device.container_edits];
        known.insert(format!("{}={}", spec.kind, device.name), Device { annotations, edits });
    }
}

/// A device by its name, `vendor.com/class=name`; the first of `vendor.com/class`; all of `vendor.com/class=*`; else
/// all that say they are of this class.
fn matching(known: &BTreeMap<String, Device>, wanted: &str) -> Vec<String> {
    let (kind, name) = wanted.split_once('=').unwrap_or((wanted, ""));
    let of_kind = || known.keys().filter(|key| key.split('=').next() == Some(kind)).cloned();
    let found: Vec<String> = match name {
        "" => of_kind().take(1).collect(),
        "*" => of_kind().collect(),
        _ => known.keys().filter(|key| *key == wanted).cloned().collect(),
    };
    if !found.is_empty() {
        return found;
    }
    let is_of_class = |device: &Device| device.annotations.get(CLASS).is_some_and(|class| class == wanted);
    known.iter().filter(|(_, device)| is_of_class(device)).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: &str = "cdiVersion: \"0.6.0\"\nkind: acme.com/gpu\nannotations:\n  \
        org.mobyproject.buildkit.device.class: gpu\ncontainerEdits:\n  env: [ALL=1]\ndevices:\n\
        - name: \"0\"\n  containerEdits:\n    env: [GPU=0]\n- name: \"1\"\n  annotations:\n    \
        org.mobyproject.buildkit.device.autoallow: \"true\"\n  containerEdits:\n    env: [GPU=1]\n";

    fn env(allowed: &[Entitlement], wanted: &str, optional: bool) -> std::result::Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("acme.yaml"), SPECS).unwrap();
        let devices = Devices::new(vec![dir.path().into()], allowed.to_vec());
        let wanted = CdiDevice { name: wanted.into(), optional };
        let edits = devices
            .for_step(&[wanted])
            .map_err(|failure| format!("{} | {}", failure.message, failure.hints.concat()))?;
        Ok(edits.env)
    }

    fn device(name: &str, alias: Option<&str>) -> Entitlement {
        Entitlement::Device { name: name.into(), alias: alias.map(str::to_owned) }
    }

    #[test]
    fn devices_are_meant_by_name_kind_wildcard_and_class() {
        let all = [Entitlement::AllDevices];
        let found = |wanted: &str| env(&all, wanted, true).unwrap();
        assert_eq!(found("acme.com/gpu=0"), ["ALL=1", "GPU=0"]);
        assert_eq!(found("acme.com/gpu"), ["ALL=1", "GPU=0"]);
        assert_eq!(found("acme.com/gpu=*"), ["ALL=1", "GPU=0", "ALL=1", "GPU=1"]);
        assert_eq!(found("gpu"), ["ALL=1", "GPU=0", "ALL=1", "GPU=1"]);
        assert_eq!(found("acme.com/gpu=9"), [""; 0]);
    }

    #[test]
    fn devices_must_be_allowed_unless_they_allow_themselves() {
        let forbidden = env(&[], "acme.com/gpu=0", false).unwrap_err();
        assert_eq!(
            forbidden,
            "this step wants the device `acme.com/gpu=0`, which was not allowed | \
             allow it with `--allow device=acme.com/gpu=0`"
        );
        assert!(env(&[], "acme.com/gpu=0", true).is_err(), "optional is about what is there, not about permission");
        assert!(env(&[device("acme.com/gpu=1", None)], "acme.com/gpu=0", false).is_err());
        assert!(env(&[device("acme.com/gpu=*", None)], "acme.com/gpu=0", false).is_ok());
        assert!(env(&[device("gpu", None)], "acme.com/gpu=0", false).is_ok());
        assert!(env(&[], "acme.com/gpu=1", false).is_ok());
        assert_eq!(env(&[device("acme.com/gpu=0", Some("mine"))], "mine", false).unwrap(), ["ALL=1", "GPU=0"]);
    }

    #[test]
    fn a_device_that_is_not_there_is_told_with_those_that_are() {
        let missing = env(&[Entitlement::AllDevices], "acme.com/tpu=0", false).unwrap_err();
        let wanted = "the machine has no device `acme.com/tpu=0` | name one it has: `acme.com/gpu=0`, `acme.com/gpu=1`";
        assert_eq!(missing, wanted);
        let none = Devices::new(vec!["/no/such".into()], Vec::new()).find("x", false).unwrap_err();
        assert_eq!(none.hints, ["describe it in `/no/such`: there are no devices yet"]);
    }

    #[test]
    fn later_directories_go_before_and_a_broken_description_is_named() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(first.path().join("a.yaml"), SPECS).unwrap();
        let json = r#"{"cdiVersion":"0.5.0","kind":"acme.com/gpu","devices":[{"name":"0","containerEdits":{"env":["GPU=new"]}}]}"#;
        std::fs::write(second.path().join("a.json"), json).unwrap();
        std::fs::write(second.path().join("readme.txt"), "no description").unwrap();
        let devices = |allowed| Devices::new(vec![first.path().into(), second.path().into()], allowed);
        let wanted = [CdiDevice { name: "acme.com/gpu=0".into(), optional: false }];
        assert_eq!(devices(vec![Entitlement::AllDevices]).for_step(&wanted).unwrap().env, ["GPU=new"]);
        std::fs::write(second.path().join("b.json"), "{").unwrap();
        assert!(devices(vec![]).for_step(&wanted).unwrap_err().message.contains("b.json"));
        assert!(devices(vec![]).for_step(&[]).is_ok(), "who wants no device does not care");
    }
}
