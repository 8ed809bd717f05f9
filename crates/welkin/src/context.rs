//! What every verb is given: the node to ask and the screen to show things on.

use std::collections::BTreeMap;
use std::path::PathBuf;

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
        let inside_an_object = std::env::var_os("WELKIN_SOCKET").map(PathBuf::from);
        let socket = match (named, inside_an_object) {
            (None, Some(socket)) => socket,
            (Some(_), _) | (None, None) => host::socket_path(&state_dir),
        };
        Self {
            client: Client::at(socket),
            state_dir,
            screen: Screen::detect(),
        }
    }

    /// What nodes are called. Never fails: without an answer, ids have to do.
    pub(crate) async fn node_names(&self) -> NodeNames {
        match self.client.call(NodeList {}).await {
            Ok(answer) => NodeNames::of(&answer.nodes),
            Err(_unknown) => NodeNames::default(),
        }
    }
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

/// What people call an object: its app and its index.
pub(crate) fn object_name(object: &ObjectFacts) -> String {
    format!("{}/{}", object.app_name, object.index)
}
