//! Images and names.

use kiln_oci::{Descriptor, Digest, MediaType, Reference};
use kiln_store::{Error, Snapshot};

use crate::{Fixture, key};

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn a_moved_tag_leaves_the_old_image_nameless() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let (old, new) = (f.image(&lease, "{1}", None), f.image(&lease, "{2}", None));
    let images = f.store.images();
    images.put(&old, &[name("app")]).unwrap();
    images.put(&new, &[name("app"), name("app:2")]).unwrap();
    assert_eq!(images.by_name(&name("app")).unwrap().unwrap().record, new);
    let old = images.get(&old.id).unwrap().unwrap();
    assert!(old.names.is_empty());
    let new = images.get(&new.id).unwrap().unwrap();
    assert_eq!(new.names, ["docker.io/library/app:2", "docker.io/library/app:latest"]);
    assert_eq!(images.list().unwrap().len(), 2);
}

#[test]
fn an_image_goes_with_its_last_name() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let image = f.image(&lease, "{}", None);
    let images = f.store.images();
    images.put(&image, &[name("a")]).unwrap();
    images.tag(&image.id, &name("localhost:5000/b:1")).unwrap();
    let first = images.remove_name(&name("a")).unwrap();
    assert_eq!((first.untagged, first.deleted), (vec!["docker.io/library/a:latest".to_owned()], None));
    assert!(images.get(&image.id).unwrap().is_some());
    assert_eq!(images.remove_name(&name("localhost:5000/b:1")).unwrap().deleted, Some(image.id.clone()));
    assert!(images.get(&image.id).unwrap().is_none());
    assert!(matches!(images.remove_name(&name("a")), Err(Error::UnknownImage { name }) if name == "a:latest"));
}

#[test]
fn removing_an_image_removes_all_its_names() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let image = f.image(&lease, "{}", None);
    f.store.images().put(&image, &[name("a:1"), name("a:2")]).unwrap();
    let removed = f.store.images().remove(&image.id).unwrap();
    assert_eq!(removed.untagged, ["docker.io/library/a:1", "docker.io/library/a:2"]);
    assert!(f.store.images().by_name(&name("a:1")).unwrap().is_none());
    assert!(matches!(f.store.images().remove(&image.id), Err(Error::UnknownImage { .. })));
}

#[test]
fn images_are_found_as_people_say_them() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let manifest = Descriptor::of(MediaType::OCI_MANIFEST, b"manifest");
    let mut image = f.image(&lease, "{}", None);
    image.manifest = Some(manifest.clone());
    image.repo_digests = vec![format!("docker.io/library/app@{}", manifest.digest)];
    f.store.images().put(&image, &[name("app:1")]).unwrap();
    let by_digest = format!("app@{}", manifest.digest);
    let pinned = format!("app:1@{}", manifest.digest);
    let id = image.id.as_str();
    let hex = image.id.hex();
    let said =
        ["app:1", "docker.io/library/app:1", id, hex, &hex[..12], &hex[..1], &id[..12], manifest.digest.as_str()];
    for text in said.into_iter().chain([by_digest.as_str(), pinned.as_str()]) {
        assert_eq!(f.store.images().find(text).unwrap().record.id, image.id, "{text}");
    }
    let elsewhere = format!("other@{}", manifest.digest);
    for text in ["app", "app:2", "", "sha256:", "UPPER", "%", "zz", key("x").as_str(), &elsewhere] {
        let outcome = f.store.images().find(text);
        assert!(matches!(outcome, Err(Error::UnknownImage { .. })), "{text}: {outcome:?}");
    }
}

#[test]
fn a_name_goes_before_an_id_that_begins_like_it() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let (one, two) = (f.image(&lease, "{1}", None), f.image(&lease, "{2}", None));
    let prefix = one.id.hex()[..6].to_owned();
    f.store.images().put(&one, &[]).unwrap();
    assert_eq!(f.store.images().find(&prefix).unwrap().record.id, one.id);
    f.store.images().put(&two, &[name(&prefix)]).unwrap();
    assert_eq!(f.store.images().find(&prefix).unwrap().record.id, two.id);
}

#[test]
fn an_ambiguous_id_names_the_candidates() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    // Of seventeen ids two must begin alike.
    let ids: Vec<Digest> = (0..17)
        .map(|number| {
            let image = f.image(&lease, &format!("{{{number}}}"), None);
            f.store.images().put(&image, &[]).unwrap();
            image.id
        })
        .collect();
    let first = |id: &&Digest| id.hex()[..1].to_owned();
    let digit = ids.iter().map(|id| first(&id)).find(|d| ids.iter().filter(|id| first(id) == *d).count() > 1).unwrap();
    let mut expected: Vec<_> = ids.iter().filter(|id| first(id) == digit).cloned().collect();
    expected.sort_unstable();
    match f.store.images().find(&digit) {
        Err(Error::AmbiguousImage { prefix, candidates }) => assert_eq!((prefix, candidates), (digit, expected)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_cannot_hold_what_is_not_there() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let mut image = f.image(&lease, "{}", None);
    image.blobs.push(key("missing"));
    assert!(matches!(f.store.images().put(&image, &[name("a")]), Err(Error::UnknownBlob { .. })));
    image.blobs.pop();
    image.snapshot = Some(Snapshot::new(["0123456789ab.1".parse().unwrap()]));
    assert!(matches!(f.store.images().put(&image, &[name("a")]), Err(Error::UnknownLayer { .. })));
    assert!(f.store.images().list().unwrap().is_empty(), "nothing is kept by half");
    assert!(matches!(f.store.images().tag(&image.id, &name("a")), Err(Error::UnknownImage { .. })));
}

#[test]
fn putting_again_replaces_but_repositories_add_up() {
    let f = Fixture::new();
    let lease = f.store.lease().unwrap();
    let tree = f.grow(&Snapshot::scratch(), &lease, 1);
    let mut image = f.image(&lease, "{}", None);
    image.repo_digests = vec!["a@sha256:1".to_owned()];
    f.store.images().put(&image, &[name("a")]).unwrap();
    image.repo_digests = vec!["b@sha256:1".to_owned(), "a@sha256:1".to_owned()];
    image.snapshot = Some(tree.clone());
    f.store.images().put(&image, &[name("b")]).unwrap();
    let found = f.store.images().get(&image.id).unwrap().unwrap();
    assert_eq!(found.record.repo_digests, ["a@sha256:1", "b@sha256:1"]);
    assert_eq!(found.record.snapshot, Some(tree));
    assert_eq!(found.names.len(), 2);
}
