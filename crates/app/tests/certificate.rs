//! The certificate (P3): what it says of things outside of the application, that a backup can insist on it, and that nobody who has
//! the store and not the keys can make it say something else.
#![allow(clippy::unwrap_used, clippy::panic)] // A test file: clippy knows only test functions as tests.

mod common;
#[path = "common/nothing.rs"]
mod nothing;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use app::backup::{self, BackupOptions, BackupReport, Means};
use app::certificate::{Certificate, State};
use app::error::Error;
use app::point::{Point, Role, points};
use app::select::{Selection, select};
use app::volumes::{Existing, Located, Previous, VolumeCopy, VolumeError, VolumeRestored, Volumes};
use common::{cluster, server};
use nothing::Nothing;
use repo::store::mem::MemStore;
use repo::{
    Cancel, Env, InitOptions, Kdf, Outcome, Passphrase, Progress, Reader, ReaderOptions, Repository, Root,
    Writer,
};
use serde_json::Value;

/// Volumes that are there until somebody wants their bytes.
struct Pulled;

impl Volumes for Pulled {
    fn locate(&self, pv: &Value, _: &Value, _: &[Value]) -> Result<Located, String> {
        match pv["metadata"]["name"].as_str().unwrap_or_default() {
            "far" => Err("it is on another node".into()),
            name => Ok(Located { path: PathBuf::from(name), how: name.to_owned() }),
        }
    }

    fn backup(
        &self,
        _: &Located,
        _: &Writer,
        _: Option<(&Reader, &Previous)>,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeCopy>, VolumeError> {
        Err(VolumeError::Unreachable("the disk was pulled".into()))
    }

    fn restore(
        &self,
        _: &Reader,
        _: &Root,
        _: &Located,
        _: Existing,
        _: &Cancel,
        _: &dyn Progress,
    ) -> Result<Outcome<VolumeRestored>, VolumeError> {
        panic!("a backup restores nothing")
    }
}

fn env() -> Env {
    Env::fixed(1_767_225_600_000_000_000, 7)
}

fn passphrase() -> Passphrase {
    Passphrase::new("correct horse battery staple")
}

/// A repository in memory, and its store to tamper with.
fn repository() -> (Arc<MemStore>, Repository) {
    let store = Arc::new(MemStore::new());
    let options = InitOptions { kdf: Kdf { memory_kib: 64, passes: 1, lanes: 1 }, ..InitOptions::default() };
    let repository = Repository::init(store.clone(), &passphrase(), &options, &env()).unwrap();
    (store, repository)
}

async fn back_up(
    repository: &Repository,
    objects: &str,
    require_complete: bool,
) -> Result<BackupReport, Error> {
    let means = Means {
        repository: repository.clone(),
        volumes: Arc::new(Pulled),
        hands: Arc::new(Nothing),
        env: env(),
        cancel: Cancel::new(),
        progress: Arc::new(()),
    };
    let options = BackupOptions {
        selection: Selection { namespaces: vec!["shop".into()], ..Selection::default() },
        writer: repo::WriterOptions { threads: 1, ..repo::WriterOptions::default() },
        require_complete,
        ..BackupOptions::default()
    };
    let server = server(objects);
    backup::run(&cluster(&server).await, &means, &options).await
}

#[tokio::test]
async fn a_backup_that_must_be_complete_commits_nothing_with_a_gap() {
    for (story, objects, gap) in [
        (
            "a secret nobody has",
            "deploy web app=web secret:s",
            Some(
                "Secret shop/s of Deployment shop/web at /spec/template/spec/volumes/0/secret/secretName: not found in the cluster",
            ),
        ),
        (
            "a volume out of reach",
            "pvc d pv:far; pv far path:/x",
            Some("the data of PersistentVolumeClaim shop/d: it is on another node"),
        ),
        (
            "a volume that goes while it is read",
            "pvc d pv:near; pv near path:/x",
            Some("the data of PersistentVolumeClaim shop/d: the disk was pulled"),
        ),
        ("nothing is missing", "deploy web app=web secret:s; secret s", None),
        (
            "a database elsewhere is told, and no gap",
            "deploy web app=web env:postgres://u:p@db.example.com/x",
            None,
        ),
    ] {
        let (_, repository) = repository();
        let done = back_up(&repository, objects, true).await;
        let committed = points(&repository, None).unwrap().done.len();
        match (done, gap) {
            (Ok(report), None) => {
                assert!(report.certificate.complete, "{story}");
                assert_eq!(committed, 1, "{story}");
            }
            (Err(error @ Error::Incomplete(_)), Some(gap)) => {
                assert_eq!(committed, 0, "{story}");
                assert!(error.to_string().contains(gap), "{story}: {error}");
            }
            (done, _) => panic!("{story}: {done:?}"),
        }
        // Without insisting there is a point, and it says the same.
        if let Some(gap) = gap {
            let report = back_up(&repository, objects, false).await.unwrap();
            assert!(!report.certificate.complete, "{story}");
            assert!(
                report.certificate.gaps().iter().any(|g| g == gap),
                "{story}: {:?}",
                report.certificate.gaps()
            );
        }
    }
}

#[tokio::test]
async fn what_lies_outside_of_an_application_is_found_by_itself_and_missed_when_it_is_gone() {
    let web = "deploy web app=web";
    for (story, objects, gone, expected, role, state) in [
        (
            "a secret that others use",
            format!("{web} secret:s; deploy b app=b secret:s"),
            "secret s",
            "Secret shop/s",
            Role::Shared,
            State::Missing,
        ),
        (
            "a cluster role binding",
            format!("{web} sa:x; sa x; clusterrole r"),
            "crb c sa:x clusterrole:r",
            "ClusterRoleBinding c",
            Role::Cluster,
            State::Included,
        ),
        (
            "the role of a cluster role binding",
            format!("{web} sa:x; sa x; crb c sa:x clusterrole:r"),
            "clusterrole r",
            "ClusterRole r",
            Role::Cluster,
            State::Missing,
        ),
        (
            "an account",
            format!("{web} sa:x; crb c sa:x clusterrole:r; clusterrole r"),
            "sa x",
            "ServiceAccount shop/x",
            Role::Member,
            State::Missing,
        ),
        (
            "an ingress class",
            format!("{web}; svc web sel:app=web; ing i svc:web class:edge"),
            "ingclass edge",
            "IngressClass edge",
            Role::Cluster,
            State::Missing,
        ),
        (
            "a storage class",
            format!("{web} pvc:d; pvc d class:fast"),
            "sc fast",
            "StorageClass fast",
            Role::Cluster,
            State::Missing,
        ),
        (
            "a priority class",
            format!("{web} prio:high"),
            "prio high",
            "PriorityClass high",
            Role::Cluster,
            State::Missing,
        ),
        (
            "a definition",
            format!("{web}; thing t app=web"),
            "crd things.example.com",
            "CustomResourceDefinition things.example.com",
            Role::Cluster,
            State::ExpectedOnTarget,
        ),
        (
            "a service of another namespace",
            format!("{web} env:http://db.data.svc; cm data/x"),
            "svc data/db sel:app=db",
            "Service data/db",
            Role::Shared,
            State::ExpectedOnTarget,
        ),
        (
            "the same by its short name",
            format!("{web} env:redis://db.data:6379; cm data/x"),
            "svc data/db sel:app=db",
            "Service data/db",
            Role::Shared,
            State::Included,
        ),
    ] {
        let asked =
            Selection { namespaces: vec!["shop".into()], labels: "app=web".into(), ..Selection::default() };
        let with = server(&format!("{objects}; {gone}"));
        let selected = select(&cluster(&with).await, &asked).await.unwrap();
        let found = selected.objects.iter().find(|(key, _)| key.to_string() == expected);
        assert_eq!(found.map(|(_, picked)| picked.role), Some(role), "{story}");

        let without = server(&objects);
        let selected = select(&cluster(&without).await, &asked).await.unwrap();
        assert!(selected.objects.keys().all(|key| key.to_string() != expected), "{story}");
        let told: Vec<State> =
            selected.references.iter().filter(|r| r.to.to_string() == expected).map(|r| r.state).collect();
        match state {
            // What refers to it was what is gone.
            State::Included => assert!(
                told.is_empty() || told.iter().all(|s| *s == State::ExpectedOnTarget),
                "{story}: {told:?}"
            ),
            state => assert!(!told.is_empty() && told.iter().all(|s| *s == state), "{story}: {told:?}"),
        }
    }
}

/// What a reader of the point gets as its certificate, if it gets one.
fn read(store: &Arc<MemStore>, point: &str) -> Result<Certificate, repo::Error> {
    let repository = Repository::open(store.clone(), &passphrase(), &env())?;
    let info = repository.find_commit(point)?;
    let reader = repository.reader(ReaderOptions::default())?;
    Point::read(&reader, &info).map(|point| point.certificate)
}

/// The certificate is signed with the point: whoever has the store and not the keys can neither alter it nor put another in its
/// place without every reader noticing.
#[tokio::test]
async fn p3_an_altered_certificate_is_found() {
    let (store, repository) = repository();
    let lacking = back_up(&repository, "deploy web app=web secret:s", false).await.unwrap();
    let whole = back_up(&repository, "deploy web app=web secret:s; secret s", false).await.unwrap();
    let (lacking, whole) = (lacking.info.id.to_string(), whole.info.id.to_string());
    let truth = read(&store, &lacking).unwrap();
    assert!(!truth.complete && read(&store, &whole).unwrap().complete);

    let objects: BTreeMap<String, _> = store.snapshot();
    let refused = std::cell::Cell::new(0);
    // Whatever is done to whatever object: the reader gets the truth, or an error.
    let look = |story: &str, store: &Arc<MemStore>| match read(store, &lacking) {
        Ok(certificate) => assert_eq!(certificate, truth, "{story}"),
        Err(_) => refused.set(refused.get() + 1),
    };
    for (name, bytes) in &objects {
        for share in 0..=16 {
            let mut altered = bytes.to_vec();
            let at = (altered.len() - 1) * share / 16;
            altered[at] ^= 1;
            store.tamper(name, Some(altered.into()));
            look(&format!("{name}: bit flipped at {at}"), &store);
        }
        store.tamper(name, None);
        look(&format!("{name}: gone"), &store);
        // The whole point's own in place of the lacking one's.
        let kind = name.split('/').next();
        for (other, theirs) in
            objects.iter().filter(|(other, _)| *other != name && other.split('/').next() == kind)
        {
            store.tamper(name, Some(theirs.clone()));
            look(&format!("{name}: replaced by {other}"), &store);
        }
        store.tamper(name, Some(bytes.clone()));
    }
    assert!(refused.get() > objects.len(), "{} of {} objects", refused.get(), objects.len());
    look("put back", &store);
    assert_eq!(read(&store, &lacking).unwrap(), truth);
}
