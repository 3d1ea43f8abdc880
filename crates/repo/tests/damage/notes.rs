//! Small objects beside the data × every kind of damage: they may cost attention or time, never a point.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use repo::check::{Budget, CheckOptions, CheckReport, check};
use repo::store::mem::MemStore;
use repo::{Env, Passphrase, Repository, Severity};

use crate::fixture::{Fixture, NOW, READ, noise, open};
use crate::repair::Changes;
use crate::{Restored, flip, restore};

fn budget(store: &MemStore) -> CheckReport {
    static RUNS: AtomicU64 = AtomicU64::new(1_000);
    // Dice of its own for each run, as on any machine: the same would give two notes one name.
    let env = Env::fixed(NOW, RUNS.fetch_add(1, Ordering::Relaxed));
    let repo = Repository::open(Arc::new(store.clone()), &Passphrase::new(READ), &env).unwrap();
    let options = CheckOptions { budget: Some(Budget::Share(0.2)), ..CheckOptions::default() };
    check(&repo, &options, &()).unwrap()
}

/// Adds two holds of different points and two notes of checks.
fn with_notes(fixture: &mut Fixture) {
    let store = fixture.damaged(&[]);
    for (number, reason) in [(0, "an audit"), (2, "a dispute")] {
        open(&store).unwrap().add_hold(&fixture.points[number].0, reason, "us", None).unwrap();
    }
    budget(&store);
    budget(&store);
    fixture.objects = store.snapshot();
}

#[test]
fn a_damaged_hold_or_note_is_told_and_no_point_is_lost_or_let_go() {
    let mut fixture = Fixture::new();
    with_notes(&mut fixture);
    for (folder, code, severity) in
        [("holds/", "hold-damaged", Severity::Error), ("checks/", "check-note-damaged", Severity::Warning)]
    {
        let keys = fixture.keys(folder);
        let [a, b] = keys.as_slice() else { panic!("two of {folder}: {keys:?}") };
        let get = |key: &String| fixture.objects[key].clone();
        let mut cases: Vec<(String, Changes)> = Vec::new();
        // The last note is the one that counts.
        for at in (0..get(b).len()).step_by(29) {
            cases.push((format!("flipped at {at}"), vec![(b.clone(), flip(&get(b), at))]));
        }
        for length in [0, 1, 40, get(b).len() - 1] {
            cases.push((format!("cut to {length}"), vec![(b.clone(), Some(get(b).slice(..length)))]));
        }
        cases.push(("noise".into(), vec![(b.clone(), Some(noise(1, 200).into()))]));
        cases.push(("swapped".into(), vec![(a.clone(), Some(get(b))), (b.clone(), Some(get(a)))]));
        cases.push(("deleted".into(), vec![(b.clone(), None)]));
        for (story, changes) in cases {
            let story = format!("{b} {story}");
            let store = fixture.damaged(&changes);
            let held = |store: &MemStore| {
                let holds = open(store).unwrap().holds().unwrap().done;
                holds.into_iter().map(|hold| hold.commit).collect::<BTreeSet<_>>()
            };
            let gone = changes.iter().any(|(_, content)| content.is_none());
            let before = held(&store);
            assert!(gone || before == held(&fixture.damaged(&[])), "{story}: what was held is still held");
            let report = budget(&store);
            let told: Vec<_> = report
                .findings
                .iter()
                .filter(|finding| finding.code == code)
                .map(|finding| (finding.what.clone(), finding.severity))
                .collect();
            // (Which of two holds is gone nobody can say; a note that is gone costs reading again.)
            assert_eq!(told.contains(&(b.clone(), severity)), !gone, "{story}: {:#?}", report.findings);
            assert_eq!(report.points, []);
            assert!(report.turn.is_some_and(|turn| turn.packs > 0), "{story}: the turns go on");
            let repo = open(&store).unwrap();
            for (id, expected) in &fixture.points {
                assert_eq!(restore(&repo, id, expected), Restored::But(BTreeSet::new()), "{story}");
            }
            // The turns come round whatever became of their notes.
            if changes.len() > 1 || gone {
                let before = budget(&store).turn.unwrap().laps;
                let laps = (0..6).map(|_| budget(&store).turn.unwrap().laps).max();
                assert!(laps > Some(before), "{story}");
            }
        }
    }
}

/// Whoever has only the put key, or none, cannot claim that all has been read.
#[test]
fn r5_a_thief_cannot_make_a_check_pass_over_packs() {
    let fixture = Fixture::new();
    let store = fixture.damaged(&[]);
    budget(&store);
    let note = store.snapshot().into_keys().find(|key| key.starts_with("checks/")).unwrap();
    // The note of another repository, under names that would come last.
    let other = Fixture::new();
    let foreign = other.damaged(&[]);
    let stranger =
        Repository::open(Arc::new(foreign.clone()), &Passphrase::new(READ), &Env::fixed(NOW, 77)).unwrap();
    check(&stranger, &CheckOptions { budget: Some(Budget::Share(1.0)), ..CheckOptions::default() }, &())
        .unwrap();
    let bytes = foreign.snapshot().into_iter().find(|(key, _)| key.starts_with("checks/")).unwrap().1;
    let far = format!("checks/ffffffff-{}", note.split_once('-').unwrap().1);
    store.tamper(&far, Some(bytes));
    let report = budget(&store);
    assert!(
        report.findings.iter().any(|finding| finding.what == far && finding.code == "check-note-damaged")
    );
    assert!(report.turn.unwrap().packs > 0 && report.turn.unwrap().laps < 2);
}
