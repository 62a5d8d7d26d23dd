//! From the operator's YAML to a [`Config`] that cannot be wrong, or to every problem at once.
//!
//! The way: `file` reads YAML into a tree in which every value knows its place, `expand` fills in variables,
//! `include` puts several files together; `walk` checks the tree against `table`, the one list of every key;
//! `resolve` makes a [`Config`] and finds what is wrong between keys. `schema` and `reference` print the same table for
//! editors and for people. Nothing here starts, listens or connects.

mod problem;

mod places;

mod units;

mod values;

mod environment;

mod expand;

mod file;

mod include;

mod table;

mod checked;

mod walk;

mod resolve;

mod reference;

mod schema;

use std::{path::Path, sync::Arc};

pub use environment::{Environment, FixedEnvironment, Machine};
pub use places::{Places, Spot};
pub use problem::{Note, Problem, Problems};
pub use reference::reference_markdown;
pub use schema::schema;
/// A duration as operators write it, wherever they do.
pub(crate) use units::{duration, print_size};

use crate::{admin, cache, fleet, front, proxy::routing, store, telemetry, upstream};

/// Everything that one edge needs to run. Made only by resolving a file: what is here is valid.
#[derive(Debug, Clone)]
pub struct Config {
    pub node: Node,
    pub server: front::Config,
    pub admin: admin::Config,
    pub fleet: fleet::Config,
    pub store: store::Config,
    /// Named cache policies, in the order of their names.
    pub policies: Vec<Arc<cache::Policy>>,
    pub upstreams: Vec<Arc<upstream::Config>>,
    pub routing: routing::Routing,
    pub log: telemetry::Config,
    /// Where all of it is written.
    pub places: Arc<Places>,
}

/// Who this edge is among its like.
#[derive(Debug, Clone)]
pub struct Node {
    /// `node.id`; `auto` is the host's name.
    pub id: String,
    /// `node.region`, if named.
    pub region: Option<String>,
}

/// A configuration without problems, and what else is worth saying about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub config: Config,
    /// Defaults of the table of keys that have no effect in this build.
    pub notes: Vec<Note>,
    /// What is allowed but seldom meant.
    pub warnings: Vec<Problem>,
    /// Hex digits that name this configuration: equal for files that say the same, whatever their comments and layout.
    pub hash: String,
}

/// How a configuration is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Do not open certificates, secrets and other files that the configuration names; included files are read.
    pub no_files: bool,
}

/// Reads the file at `path`, everything that it includes, and every file that it names.
///
/// # Errors
/// Every problem of the configuration at once; a YAML syntax error alone.
pub fn load(path: &Path, environment: &dyn Environment) -> Result<Loaded, Problems> {
    load_with(path, environment, Options::default())
}

/// [`load`] with options.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: &Path, environment: &dyn Environment, options: Options) -> Result<Loaded, Problems> {
    include::Reading::new(environment, options).file(path)
}

/// Reads a configuration from `text`, as if it stood in `base_dir` under `file_name`.
///
/// # Errors
/// As [`load`].
pub fn parse(
    text: &str,
    file_name: &str,
    base_dir: &Path,
    environment: &dyn Environment,
    options: Options,
) -> Result<Loaded, Problems> {
    include::Reading::new(environment, options).text(text, file_name, base_dir)
}
