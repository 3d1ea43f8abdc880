//! What runs inside a pod so that a lock is let go whoever dies (promise L1), and is known to have held (L2).
//!
//! A lock has a directory of its own in the pod, `/tmp/holdfast-…`. While it is held there is a file `held` in it.
//! Whoever renames that file lets the lock go, and a rename succeeds for exactly one: for us (`released`), or for
//! the guard that the lock leaves behind in the pod (`expired`) when its time is over. So a client that dies, a
//! network that breaks or a node that stalls cannot leave an application locked, and a lock that went early
//! cannot be taken for one that held.
//!
//! Needs `sh`, `mkdir`, `mv`, `rm`, `sleep` and `date` in the container, as every image with a shell has them.

use std::time::Duration;

/// Where the lock's directory may be; the first that can be written is taken.
pub const PLACES: &[&str] = &["/tmp", "/dev/shm", "/var/tmp", "/run"];

/// The directory could not be made: try the next place.
pub const NO_PLACE: i32 = 121;
/// The lock was given up (released, or out of time) before it was acquired; it is not held.
pub const GIVEN_UP: i32 = 122;
/// The command ended without running `${WAIT_CMD}`; nothing is held.
pub const DID_NOT_WAIT: i32 = 123;
/// The guard let the lock go before us.
pub const EXPIRED: i32 = 124;
/// There is no such lock in this pod: it was restarted, or the lock was never begun.
pub const NO_LOCK: i32 = 125;
/// Let go, but the command that held it has not ended yet.
pub const STILL_RUNS: i32 = 126;

/// Quotes a word for the shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

// Sleeps a fifth of a second where `sleep` can, a second where it cannot.
const NAP: &str = "sleep 0.2 2>/dev/null || sleep 1";

// $1 directory, $2 seconds, $3 lock, $4 release.
const ACQUIRE: &str = r#"mkdir "$1" 2>/dev/null && : >"$1/held" || exit 121
end=$(($(date +%s)+$2+1))
(while [ -e "$1/held" ] && [ $(date +%s) -lt $end ]; do NAP; done
mv "$1/held" "$1/expired" 2>/dev/null && sh -c "$4") </dev/null >/dev/null 2>&1 &
sh -c "$3"; rc=$?
if [ $rc -ne 0 ]; then
mv "$1/held" "$1/failed" 2>/dev/null; rm -rf "$1"
case $rc in 121|122) rc=1;; esac
exit $rc
fi
[ -e "$1/held" ] || { sh -c "$4"; exit 122; }"#;

// $1 directory, $2 release.
const RELEASE: &str = r#"[ -d "$1" ] || exit 125
mv "$1/held" "$1/released" 2>/dev/null
if [ -e "$1/expired" ]; then rm -rf "$1"; exit 124; fi
[ -e "$1/released" ] || exit 125
sh -c "$2" && rm -rf "$1""#;

// $1 directory, $2 seconds, $3 command that runs $1/wait.
const HOLD: &str = r#"mkdir "$1" 2>/dev/null && : >"$1/held" || exit 121
cat >"$1/wait" <<E
#!/bin/sh
end=\$((\$(date +%s)+$2+1))
: >"$1/acked"
while [ -e "$1/held" ] && [ \$(date +%s) -lt \$end ]; do NAP; done
mv "$1/held" "$1/expired" 2>/dev/null
exit 0
E
chmod +x "$1/wait"
(sh -c "$3" >"$1/out" 2>&1; echo $? >"$1/rc"; mv "$1/rc" "$1/exit") </dev/null >/dev/null 2>&1 &
while :; do
[ -e "$1/acked" ] && exit 0
[ -e "$1/held" ] || exit 122
if [ -e "$1/exit" ]; then cat "$1/out" >&2; rm -rf "$1"; exit 123; fi
NAP
done"#;

// $1 directory, $2 seconds to wait for the end of the command.
const LET_GO: &str = r#"[ -d "$1" ] || exit 125
mv "$1/held" "$1/released" 2>/dev/null
end=$(($(date +%s)+$2+1))
while [ ! -e "$1/exit" ] && [ $(date +%s) -lt $end ]; do NAP; done
[ -e "$1/exit" ] || exit 126
rc=0; [ "$(cat "$1/exit")" = 0 ] || { cat "$1/out" >&2; rc=1; }
[ -e "$1/expired" ] && rc=124
rm -rf "$1"
exit $rc"#;

// $1 directory. A lock that is held by a command needs that command to be alive.
const CHECK: &str = r#"[ -e "$1/held" ] || exit 1
[ ! -e "$1/wait" ] || { [ -e "$1/acked" ] && [ ! -e "$1/exit" ]; }"#;

fn command(script: &str, name: &str, arguments: &[&str]) -> Vec<String> {
    // The name is what `ps` in the pod shows, and how tests tell the operations apart.
    let mut command: Vec<String> = vec!["sh".into(), "-c".into(), script.replace("NAP", NAP), name.into()];
    command.extend(arguments.iter().map(|a| (*a).to_owned()));
    command
}

fn seconds(time: Duration) -> String {
    time.as_secs_f64().ceil().to_string()
}

/// Locks with a command that ends, and leaves a guard that lets go after `limit`.
pub fn acquire(directory: &str, limit: Duration, lock: &str, release: &str) -> Vec<String> {
    command(ACQUIRE, "holdfast-lock", &[directory, &seconds(limit), lock, release])
}

/// Lets such a lock go.
pub fn release(directory: &str, release: &str) -> Vec<String> {
    command(RELEASE, "holdfast-release", &[directory, release])
}

/// Starts a command that holds a lock while it waits, and comes back when it waits.
pub fn hold(directory: &str, limit: Duration, line: &str) -> Vec<String> {
    let line = line.replace(super::WAIT_CMD, &format!("{directory}/wait"));
    command(HOLD, "holdfast-hold", &[directory, &seconds(limit), &line])
}

/// Lets such a command go, and waits for its end.
pub fn let_go(directory: &str, wait: Duration) -> Vec<String> {
    command(LET_GO, "holdfast-let-go", &[directory, &seconds(wait)])
}

/// Is it still held? Exit code 0: yes.
pub fn check(directory: &str) -> Vec<String> {
    command(CHECK, "holdfast-check", &[directory])
}
