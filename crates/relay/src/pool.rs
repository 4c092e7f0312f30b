//! Connections to instances, one pool for each thread. A connection lives within one epoch of its instance: before the
//! instance is paused or ended, the epoch ends and the connection closes.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use kip_control::Link;
use kip_spec::InstanceId;
use tokio::net::TcpStream;

use crate::prefix::Upload;

/// Idle connections kept for each instance and thread.
const IDLE: usize = 64;

pub(crate) type Sender = SendRequest<Upload>;

/// Idle connections by instance.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<HashMap<InstanceId, Vec<Sender>>>,
}

impl Pool {
    /// An idle connection that is alive, if there is one.
    pub(crate) fn take(&self, instance: InstanceId) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&instance)?;
        connections.retain(|connection| !connection.is_closed());
        let place = connections.iter().rposition(SendRequest::is_ready)?;
        Some(connections.swap_remove(place))
    }

    /// Gives a connection back after its exchange has ended well.
    pub(crate) fn put(&self, instance: InstanceId, connection: Sender) {
        if connection.is_closed() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(instance).or_default();
        if connections.len() < IDLE {
            connections.push(connection);
        }
    }

    /// A new connection. Its task ends it when the instance's epoch ends and forgets what the pool holds of it.
    pub(crate) async fn connect(self: &Rc<Self>, link: &Arc<Link>) -> std::io::Result<Sender> {
        let mut epoch = link.epoch();
        let stream = TcpStream::connect(link.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        let (pool, instance) = (self.clone(), link.instance);
        kip_host::tasks::spawn_local("instance connection", async move {
            tokio::select! {
                _ = connection => {}
                _ = epoch.changed() => drop(pool.idle.borrow_mut().remove(&instance)),
            }
        });
        Ok(sender)
    }
}
