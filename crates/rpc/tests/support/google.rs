//! tests/real/grpc_peer.py beside a test: Google's library, which does what it is told.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The running script. It ends when its standard input closes, so also when this test dies.
pub struct Google {
    child: Child,
    told: BufReader<ChildStdout>,
}

impl Google {
    /// With the protocol of this file.
    pub fn start(proto: &Path) -> Google {
        let get =
            Command::new(root().join("tests/real/get")).arg("python").stdin(Stdio::null()).output().unwrap();
        assert!(get.status.success(), "{}", String::from_utf8_lossy(&get.stderr));
        let python = String::from_utf8(get.stdout).unwrap();
        let python = python.lines().find_map(|line| line.strip_prefix("python=")).unwrap();
        let mut child = Command::new(python)
            .arg(root().join("tests/real/grpc_peer.py"))
            .arg(proto)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(child.stdout.take().unwrap());
        let mut google = Google { child, told };
        assert_eq!(google.line(), "ready\n");
        google
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        line
    }

    /// Off the runtime's threads: what answers may be a task of this test.
    pub fn ask(&mut self, wish: Value) -> Value {
        tokio::task::block_in_place(|| {
            writeln!(self.child.stdin.as_mut().unwrap(), "{wish}").unwrap();
            let line = self.line();
            serde_json::from_str(&line).unwrap_or_else(|_| panic!("{wish}: {line:?}"))
        })
    }
}

impl Drop for Google {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
