//! What every verb is given: the node to ask and the screen to show things on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use client::Client;
use wire::call::{NodeList, NodeSummary};
use wire::fact::ObjectFacts;
use wire::id::NodeId;

use crate::flags::Global;
use crate::output::Screen;

/// What every verb is given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Asks the node.
    pub(crate) client: Client,
    /// The directory of the node on this machine.
    pub(crate) state_dir: PathBuf,
    /// What standard output and standard error are.
    pub(crate) screen: Screen,
}

impl Context {
    /// The node that the flags and the environment mean.
    pub(crate) fn new(global: &Global) -> Self {
        let named = global.state_dir.as_ref();
        let named = named.filter(|it| !it.as_os_str().is_empty());
        let state_dir = named.cloned().unwrap_or_else(host::default_state_dir);
        // A relative directory must mean the same to a daemon that works elsewhere.
        let state_dir = std::path::absolute(&state_dir).unwrap_or(state_dir);
        let surroundings = Surroundings {
            is_named: named.is_some(),
            inside_an_object: std::env::var_os("WELKIN_SOCKET").map(PathBuf::from),
            has_own_node: host::home::exists(&state_dir),
            has_node_of_root: Path::new(host::home::ROOT_SOCKET).exists(),
        };
        Self {
            client: Client::at(surroundings.socket(&state_dir)),
            state_dir,
            screen: Screen::detect(),
        }
    }

    /// The same for verbs that make a node of the directory: the node of root is not meant.
    pub(crate) fn own(&self) -> Self {
        Self {
            client: Client::at(host::socket_path(&self.state_dir)),
            ..self.clone()
        }
    }

    /// Whether a node of root answers here beside the directory that is meant.
    pub(crate) async fn is_beside_root(&self) -> bool {
        let socket = Path::new(host::home::ROOT_SOCKET);
        host::socket_path(&self.state_dir) != socket && Client::at(socket).is_up().await
    }

    /// What nodes are called. Never fails: without an answer, ids have to do.
    pub(crate) async fn node_names(&self) -> NodeNames {
        match self.client.call(NodeList {}).await {
            Ok(answer) => NodeNames::of(&answer.nodes),
            Err(_unknown) => NodeNames::default(),
        }
    }
}

/// Where the node that answers at this socket keeps its state.
pub(crate) fn directory_of(socket: &Path) -> &Path {
    if socket == Path::new(host::home::ROOT_SOCKET) {
        Path::new(host::home::ROOT_STATE_DIR)
    } else {
        socket.parent().unwrap_or(Path::new("/"))
    }
}

/// Where the daemon that answers at this socket says what it does.
pub(crate) fn daemon_log(socket: &Path) -> PathBuf {
    directory_of(socket).join("daemon.log")
}

/// What nodes are called.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeNames(BTreeMap<NodeId, String>);

impl NodeNames {
    /// The names in an answer.
    pub(crate) fn of(nodes: &[NodeSummary]) -> Self {
        Self(nodes.iter().map(|it| (it.node, it.name.clone())).collect())
    }

    /// The name, or the beginning of the id.
    pub(crate) fn get(&self, node: NodeId) -> String {
        self.0.get(&node).cloned().unwrap_or_else(|| node.short())
    }
}

/// What says which node is meant.
#[derive(Debug, Clone)]
struct Surroundings {
    /// A flag or the environment names a state directory.
    is_named: bool,
    /// The socket of the node below an object.
    inside_an_object: Option<PathBuf>,
    /// The state directory holds a node.
    has_own_node: bool,
    /// There is a socket of the node of root.
    has_node_of_root: bool,
}

impl Surroundings {
    /// Where the node that is meant listens. Whoever has none of their own means the node of root,
    /// which says itself whom it serves; for root that is the same.
    fn socket(self, state_dir: &Path) -> PathBuf {
        match self.inside_an_object {
            Some(socket) if !self.is_named => socket,
            None if !self.is_named && !self.has_own_node && self.has_node_of_root => {
                PathBuf::from(host::home::ROOT_SOCKET)
            }
            Some(_) | None => host::socket_path(state_dir),
        }
    }
}

/// What people call an object: its app and its index.
pub(crate) fn object_name(object: &ObjectFacts) -> String {
    format!("{}/{}", object.app_name, object.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user in the group `welkin` was told that no node is up, while that of root was.
    #[test]
    fn whoever_has_no_node_means_that_of_root() {
        let own = "/home/me/welkin";
        let own_socket = "/home/me/welkin/welkin.sock";
        let check = |is_named, inside: Option<&str>, has_own_node, has_node_of_root, expected| {
            let surroundings = Surroundings {
                is_named,
                inside_an_object: inside.map(PathBuf::from),
                has_own_node,
                has_node_of_root,
            };
            let socket = surroundings.socket(Path::new(own));
            assert_eq!(socket, Path::new(expected));
        };
        check(false, None, false, true, host::home::ROOT_SOCKET);
        check(false, None, true, true, own_socket);
        check(true, None, false, true, own_socket);
        check(false, None, false, false, own_socket);
        check(
            false,
            Some("/run/object.sock"),
            false,
            true,
            "/run/object.sock",
        );
        check(true, Some("/run/object.sock"), false, true, own_socket);
    }

    #[test]
    fn a_log_is_in_the_directory_of_its_node() {
        let log = daemon_log(Path::new("/x/y/welkin.sock"));
        assert_eq!(log, Path::new("/x/y/daemon.log"));
        let log = daemon_log(Path::new(host::home::ROOT_SOCKET));
        assert_eq!(log, Path::new("/var/lib/welkin/daemon.log"));
    }
}
