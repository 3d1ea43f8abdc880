//! Replicas with clocks of their own around one Lease: a table of looks, and many histories.

use apiserver::{ApiServer, Options};

use super::*;

const START: Timestamp = Timestamp::constant(1_900_000_000, 0);

fn at(steady: u64) -> Reading {
    let wall = Timestamp::from_second(START.as_second() + steady as i64).unwrap();
    Reading { steady: Duration::from_secs(steady), wall }
}

fn record(holder: &str, term: u64, version: &str) -> Record {
    Record { holder: holder.into(), term, lasts: LASTS, version: version.into(), made: 0 }
}

#[test]
fn who_waits_takes_a_lease_that_has_not_changed_for_as_long_as_it_lasts() {
    let look = |story: &str, looks: &[(Option<Record>, u64)], expect: Next| {
        let mut candidate = Candidate::new("me");
        let mut next = None;
        for (found, now) in looks {
            next = Some(candidate.next(found.as_ref(), at(*now)));
        }
        assert_eq!(next, Some(expect), "{story}");
    };
    let (a1, a2) = (Some(record("a", 7, "1")), Some(record("a", 7, "2")));
    let wait = |seconds| Next::Wait(Duration::from_secs(seconds));
    look("not there: perhaps it was a moment ago", &[(None, 0)], wait(2));
    let absent = |from: u64, until: u64| {
        (from..=until).step_by(2).chain([until]).map(|at| (None, at)).collect::<Vec<_>>()
    };
    look("nobody has one", &absent(0, 15), Next::Make);
    look("nobody had one before it slept", &[(None, 0), (None, 15)], wait(2));
    look("seen for the first time: whatever its times say", &[(a1.clone(), 1000)], wait(2));
    look("not changed for less than it lasts", &[(a1.clone(), 0), (a1.clone(), 14)], wait(1));
    look("not changed for as long as it lasts", &[(a1.clone(), 0), (a1.clone(), 15)], Next::Take { term: 8 });
    look("renewed", &[(a1.clone(), 0), (a2.clone(), 14), (a2.clone(), 28)], wait(1));
    look("renewed, and then not", &[(a1.clone(), 0), (a2.clone(), 14), (a2, 29)], Next::Take { term: 8 });
    look("given back", &[(a1.clone(), 0), (Some(record("", 7, "2")), 1)], Next::Take { term: 8 });
    look("ours, whose answer was lost", &[(Some(record("me", 7, "1")), 0)], Next::Take { term: 7 });
    look("deleted a moment ago: its holder may not know yet", &[(a1.clone(), 0), (None, 5)], wait(2));
    look(
        "deleted, and its holder knows by now",
        &[vec![(a1.clone(), 0)], absent(1, 16)].concat(),
        Next::Make,
    );
    let anew = Some(Record { made: 126_666_667, ..record("", 0, "1") });
    look("made anew", &[(anew.clone(), 0)], Next::Take { term: 126_666_667 });
    let far = Some(record("a", 200_000_000, "1"));
    look("made anew with a clock that is behind", &[(far, 0), (anew, 15)], Next::Take { term: 200_000_001 });
    let hours = |version: &str| Some(Record { lasts: LASTS_MAX, ..record("a", 1, version) });
    look("lasts long", &[(hours("1"), 0), (hours("1"), 299)], wait(1));
}

/// A replica of the histories: its clocks run evenly, but may leap on the wall, and it may sleep.
struct Replica {
    candidate: Candidate,
    /// How far its steady clock is ahead of that of the world.
    ahead: Duration,
    wall: i64,
    leads: Option<(u64, String, Reading)>,
    asleep_until: u64,
    looks_at: u64,
}

impl Replica {
    fn read(&self, world: u64) -> Reading {
        let wall = START.as_second() + self.wall + world as i64;
        Reading {
            steady: Duration::from_secs(world) + self.ahead,
            wall: Timestamp::from_second(wall).unwrap(),
        }
    }

    fn may_act(&self, world: u64) -> bool {
        self.leads.as_ref().is_some_and(|(_, _, sent)| self.read(world).at_most_since(sent) < ACTS_FOR)
    }
}

/// Three replicas for hours: they sleep, their wall clocks leap, requests and answers get lost, somebody deletes the Lease. Never do
/// two act at once, terms only grow, and somebody leads most of the time.
#[test]
fn never_do_two_act_at_once_and_each_term_is_greater() {
    let mut led = 0u64;
    for seed in 1..40u64 {
        let mut dice = seed;
        let mut roll = |n: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % n
        };
        let mut lease: Option<Record> = None;
        let (mut version, mut greatest, mut taken_at) = (0u64, 0u64, 0u64);
        let mut replicas: Vec<Replica> = (0..3)
            .map(|n| Replica {
                candidate: Candidate::new(&format!("replica-{n}")),
                ahead: Duration::from_secs(1000 * (n + 1)),
                wall: 0,
                leads: None,
                asleep_until: 0,
                looks_at: 0,
            })
            .collect();
        for world in 0..10_000u64 {
            for (at, replica) in replicas.iter_mut().enumerate() {
                if roll(400) == 0 {
                    replica.asleep_until = world + roll(60);
                }
                if roll(500) == 0 {
                    replica.wall += roll(7200) as i64 - 3600;
                }
                let me = format!("replica-{at}");
                if replica.asleep_until > world || replica.looks_at > world {
                    continue;
                }
                if replica.leads.is_some() && !replica.may_act(world) {
                    // Its process ends, and another begins under another name, which here is the same replica with a new memory.
                    replica.leads = None;
                    replica.candidate = Candidate::new(&me);
                    // A name is never used again: its old lease is a stranger's.
                    if let Some(lease) = lease.as_mut().filter(|lease| lease.holder == me) {
                        lease.holder = format!("{me}-before");
                    }
                }
                let (request_lost, answer_lost) = (roll(20) == 0, roll(20) == 0);
                let now = replica.read(world);
                let write = match &replica.leads {
                    Some((term, held, _)) => Some((*term, Some(held.clone()))),
                    None => match replica.candidate.next(lease.as_ref(), now) {
                        Next::Make => {
                            version += 1;
                            let made = (START.as_second() as u64 + world) / 15;
                            lease = Some(Record { made, ..record("", 0, &version.to_string()) });
                            None
                        }
                        Next::Take { term } => {
                            Some((term, lease.as_ref().map(|lease| lease.version.clone())))
                        }
                        Next::Wait(pause) => {
                            replica.looks_at = world + pause.as_secs().max(1);
                            None
                        }
                    },
                };
                let Some((term, on)) = write else { continue };
                replica.looks_at = world + if replica.leads.is_some() { 5 } else { 1 };
                if request_lost {
                    replica.looks_at = world + 1;
                    continue;
                }
                if lease.as_ref().map(|lease| lease.version.clone()) != on {
                    // A conflict, or it is gone: read again.
                    match lease.as_ref().filter(|lease| lease.holder == me && lease.term == term) {
                        Some(lease) if replica.leads.is_some() => {
                            replica.leads =
                                Some((term, lease.version.clone(), replica.leads.as_ref().unwrap().2))
                        }
                        _ => replica.leads = None,
                    }
                    continue;
                }
                version += 1;
                let first = lease.as_ref().is_none_or(|lease| lease.holder != me);
                let made = lease.as_ref().map_or(0, |lease| lease.made);
                lease = Some(Record { made, ..record(&me, term, &version.to_string()) });
                if first {
                    assert!(term > greatest, "seed {seed}, {world}: term {term} after {greatest}");
                    greatest = term;
                    taken_at = world;
                }
                if !answer_lost {
                    replica.leads = Some((term, version.to_string(), now));
                }
            }
            // Somebody deletes the Lease: not twice within seconds, which nobody who looks every other second could tell from once.
            if roll(1500) == 0 && world > taken_at + 15 {
                lease = None;
            }
            let acting: Vec<u64> = replicas
                .iter()
                .filter(|replica| replica.may_act(world))
                .filter_map(|replica| replica.leads.as_ref().map(|(term, ..)| *term))
                .collect();
            assert!(acting.len() <= 1, "seed {seed}, {world}: {acting:?}");
            led += acting.len() as u64;
        }
    }
    assert!(led > 39 * 6_000, "somebody leads most of the time: {led}");
}

fn election(server: &ApiServer, clock: &Clock, me: &str) -> Election {
    let client = kube::Client::new(server.router(), "default");
    Election::new(client, clock.clone(), "default", "holdfast-operator", me)
}

async fn pass(clock: &Clock, seconds: u64) {
    for _ in 0..seconds {
        clock.pass(Duration::from_secs(1));
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Who wins, while time passes.
async fn won(election: Election, clock: &Clock) -> (Election, Leading) {
    let winning = tokio::spawn(async move {
        let leading = election.win().await;
        (election, leading)
    });
    while !winning.is_finished() {
        pass(clock, 1).await;
    }
    winning.await.unwrap()
}

#[tokio::test]
async fn a_leader_that_cannot_renew_is_fenced_off_before_another_leads() {
    let server = ApiServer::new(Options::deterministic(1));
    let clock = Clock::ours(START);
    let (first, mut leading) = won(election(&server, &clock, "first"), &clock).await;
    assert_eq!(leading.term, 1_767_225_600 / 15, "by the server's clock");
    let client = leading.fence.client(&kube::Client::new(server.router(), "default"));
    let cluster = Cluster { client, resources: ApiResources::default() };
    assert!(cluster.get_path("/version").await.is_ok());

    // It sleeps: nobody renews. Another takes over, and by then the first one's requests have long been held back.
    let second = tokio::spawn({
        let second = election(&server, &clock, "second");
        async move { second.win().await }
    });
    pass(&clock, 9).await;
    assert!(cluster.get_path("/version").await.is_ok());
    pass(&clock, 1).await;
    let refused = cluster.get_path("/version").await.unwrap_err();
    assert!(refused.to_string().contains("leads no longer"), "{refused}");
    assert!(!second.is_finished());
    pass(&clock, 10).await;
    let second = second.await.unwrap();
    assert_eq!(second.term, leading.term + 1);
    // The first one wakes up: it has lost, and its fence stays shut whatever its clock says.
    clock.leap(jiff::SignedDuration::from_hours(-10));
    let why = first.keep(&mut leading).await;
    assert!(why.contains("could not be renewed"), "{why}");
    assert!(!leading.fence.is_open());
}

#[tokio::test]
async fn a_lease_is_kept_lost_and_given_back() {
    let server = ApiServer::new(Options::deterministic(1));
    let clock = Clock::ours(START);
    let (first, mut leading) = won(election(&server, &clock, "first"), &clock).await;
    let (term, fence) = (leading.term, leading.fence.clone());
    let kept = tokio::spawn(async move {
        let why = first.keep(&mut leading).await;
        (first, leading, why)
    });
    pass(&clock, 60).await;
    assert!(fence.is_open() && !kept.is_finished(), "renewed for a minute");
    // An administrator writes into its object: nothing happens.
    let cluster =
        Cluster { client: kube::Client::new(server.router(), "default"), resources: ApiResources::default() };
    let path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/holdfast-operator";
    let patch = |body: Value| {
        let cluster = cluster.clone();
        async move {
            cluster.json(Method::PATCH, path, "application/merge-patch+json", Some(&body)).await.unwrap()
        }
    };
    patch(json!({"metadata": {"labels": {"seen": "by-me"}}})).await;
    pass(&clock, 20).await;
    assert!(fence.is_open() && !kept.is_finished());
    // Somebody takes it away.
    patch(json!({"spec": {"holderIdentity": "second", "leaseTransitions": term + 1}})).await;
    pass(&clock, 7).await;
    let (_, _, why) = kept.await.unwrap();
    assert_eq!(why, format!("second holds the lease, of term {}", term + 1));
    assert!(!fence.is_open());
    // Given back it is had at once.
    patch(json!({"spec": {"holderIdentity": ""}})).await;
    let (third, leading) = won(election(&server, &clock, "third"), &clock).await;
    assert_eq!(leading.term, term + 2);
    third.release(leading).await.unwrap();
    let (_, leading) = won(election(&server, &clock, "fourth"), &clock).await;
    assert_eq!(leading.term, term + 3);
    let lease = cluster.get_path(path).await.unwrap();
    assert_eq!(lease["metadata"]["labels"]["seen"], json!("by-me"), "what others wrote stays");
}

/// A busy machine wakes whoever sleeps late: time that has passed counts, not how often somebody woke up.
#[tokio::test]
async fn who_is_woken_late_renews_in_time_all_the_same() {
    let server = ApiServer::new(Options::deterministic(1));
    let clock = Clock::ours(START);
    let (first, mut leading) = won(election(&server, &clock, "first"), &clock).await;
    let fence = leading.fence.clone();
    let kept = tokio::spawn(async move { first.keep(&mut leading).await });
    for _ in 0..30 {
        clock.pass(Duration::from_secs(3));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fence.is_open() && !kept.is_finished());
    kept.abort();
}
