//! Plain HTTP on a listener, and a kubeconfig to point kubectl at it.
//!
//! Only ever meant for the loopback interface: there is no authentication.

use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server that is listening. Stops when dropped.
#[derive(Debug)]
pub struct Serving {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Serving {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A kubeconfig for it.
    pub fn kubeconfig(&self) -> String {
        kubeconfig(self.addr)
    }

    /// Stops it and waits until it has.
    pub async fn stop(mut self) {
        self.task.abort();
        // The only possible outcome is "cancelled", which is what we asked for.
        let _ = (&mut self.task).await;
    }

    /// Runs until the listener fails, for a foreground command.
    pub async fn wait(mut self) {
        // A panic inside the task was already reported by its own hook.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn serve(router: axum::Router, listener: TcpListener) -> std::io::Result<Serving> {
    let addr = listener.local_addr()?;
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%addr, %error, "the API server stopped listening");
        }
    });
    Ok(Serving { addr, task })
}

/// A kubeconfig whose only context points at this address.
pub fn kubeconfig(addr: SocketAddr) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: embedded\nclusters:\n- name: embedded\n  cluster:\n    \
         server: http://{addr}\ncontexts:\n- name: embedded\n  context:\n    cluster: embedded\n    user: embedded\n    \
         namespace: default\nusers:\n- name: embedded\n  user: {{}}\n"
    )
}
