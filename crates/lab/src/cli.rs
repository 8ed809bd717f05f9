//! The verbs of the command, each a few lines over the library.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use lab::control::{Remote, Request};
use lab::daemon::{Side, start_in_background};
use lab::{Lab, LinkChange, Nat, Subnet, Wan};

use crate::output;

/// Many hosts on this machine, with a network between them that can be cut, slowed and made lossy.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
struct Cli {
    /// Which lab
    #[arg(long, global = true, env = "LAB_NAME", default_value = "default")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a lab; it goes on in the background
    Up(Up),
    /// Run a program on a host; its exit code is passed on
    Exec {
        /// The host
        host: String,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    /// Change the link between two hosts; what is not named stays
    Link(LinkArguments),
    /// Cut the paths between two groups: lab cut h1,h2 / h3 (without a right side: all others)
    Cut {
        /// Hosts on the left, a slash, hosts on the right; groups are separated by commas
        #[arg(required = true)]
        groups: Vec<String>,
        /// Only the left cannot reach the right
        #[arg(long)]
        one_way: bool,
    },
    /// Remove all cuts
    Heal {
        /// Also make every link again as it was at the start
        #[arg(long)]
        links: bool,
    },
    /// Cut the power of a host: everything on it dies at once
    Kill {
        /// The host
        host: String,
    },
    /// Boot a host that was killed; its address and disk are as before
    Start {
        /// The host
        host: String,
    },
    /// Carry a host that runs to another address: lab move h3 10.77.0.103
    Move {
        /// The host
        host: String,
        /// Its address from now on, or that of the router that it is behind
        address: Ipv4Addr,
    },
    /// Show hosts, links and cuts
    Status {
        /// How to write it
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// End all hosts and take everything away, also after a crash
    Down,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct Up {
    /// How many hosts: h1, h2, ...
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Round-trip times in ms: a tab-separated file of names and a square matrix, or `builtin`
    #[arg(long)]
    wan: Option<PathBuf>,
    /// Sites of the matrix to deal hosts out over, in turn [default: the first ones]
    #[arg(long, value_delimiter = ',', requires = "wan")]
    sites: Option<Vec<String>>,
    /// The network of the hosts
    #[arg(long, default_value_t = Subnet::DEFAULT)]
    subnet: Subnet,
    /// The seed of loss and jitter
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A directory that each host has for itself, besides /var/lib/welkin and /run/welkin
    #[arg(long = "private", value_name = "DIR")]
    private: Vec<PathBuf>,
    /// Hosts behind routers that translate addresses, such as h2,h3
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    nat: Vec<String>,
    /// The same, behind routers through which no hole can be punched
    #[arg(long, value_name = "HOSTS", value_delimiter = ',')]
    symmetric_nat: Vec<String>,
    /// Where to keep the directories of the hosts [default: /var/tmp]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Loopback addresses instead of namespaces, also for root
    #[arg(long)]
    no_namespaces: bool,
}

#[derive(Debug, Args)]
struct LinkArguments {
    /// One host
    left: String,
    /// The other host
    right: String,
    /// One-way delay, such as 40ms
    #[arg(long, value_parser = lab::parse_duration)]
    delay: Option<Duration>,
    /// Each frame takes up to this much more or less
    #[arg(long, value_parser = lab::parse_duration)]
    jitter: Option<Duration>,
    /// Share of lost frames, such as 1%
    #[arg(long, value_parser = lab::parse_share)]
    loss: Option<f64>,
    /// Bits per second, such as 100M, or `unlimited`
    #[arg(long, value_parser = parse_rate)]
    rate: Option<Rate>,
    /// Only from the first host to the second
    #[arg(long)]
    one_way: bool,
}

/// A wrapper, because clap would take a plain `Option` for an option that may be absent.
#[derive(Clone, Copy, Debug)]
struct Rate(Option<u64>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    lab::parse_rate(text).map(Rate)
}

/// How a verb ends: an exit code, or a sentence and the code that goes with it.
type Outcome = Result<ExitCode, (String, u8)>;

const FAILED: u8 = 1;
/// As other tools that run programs elsewhere: 125 is our own fault, 126 and 127 the program's.
const EXEC_FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub(crate) fn main() -> ExitCode {
    let Cli { name, verb } = Cli::parse();
    run(name, verb).unwrap_or_else(|(reason, code)| {
        output::refuse(&reason);
        ExitCode::from(code)
    })
}

fn run(name: String, verb: Verb) -> Outcome {
    let remote = Remote::named(name.as_str());
    let ask = |request| match remote.ask(&request) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err((error.to_string(), FAILED)),
    };
    match verb {
        Verb::Up(up) => start(name, up),
        Verb::Exec { host, command } => exec(&remote, &host, &command),
        Verb::Link(arguments) => ask(arguments.request()),
        Verb::Cut { groups, one_way } => {
            let (left, right) = split_groups(&groups).map_err(|reason| (reason, FAILED))?;
            ask(Request::Cut {
                left,
                right,
                one_way,
            })
        }
        Verb::Heal { links } => ask(Request::Heal { links }),
        Verb::Kill { host } => ask(Request::Kill(host)),
        Verb::Start { host } => ask(Request::Start(host)),
        Verb::Move { host, address } => ask(Request::Move { host, address }),
        Verb::Status { output } => {
            let status = remote
                .status()
                .map_err(|error| (error.to_string(), FAILED))?;
            match output {
                Format::Table => output::table(&status),
                Format::Json => output::json(&status),
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Down => match remote.down() {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err((error.to_string(), FAILED)),
        },
    }
}

fn start(name: String, up: Up) -> Outcome {
    let mut builder = Lab::builder()
        .hosts(up.hosts)
        .name(name.as_str())
        .subnet(up.subnet)
        .seed(up.seed);
    if let Some(matrix) = up.wan {
        builder = builder.wan(Wan::read(matrix).map_err(|error| (error.to_string(), FAILED))?);
    }
    if let Some(sites) = up.sites {
        builder = builder.sites(sites);
    }
    for place in up.private {
        builder = builder.private_directory(place);
    }
    if let Some(parent) = up.data {
        builder = builder.data_below(parent);
    }
    for host in up.nat {
        builder = builder.behind(host, Nat::Cone);
    }
    for host in up.symmetric_nat {
        builder = builder.behind(host, Nat::Symmetric);
    }
    if up.no_namespaces {
        builder = builder.without_namespaces();
    }
    if start_in_background(builder).map_err(|reason| (reason, FAILED))? == Side::Caller {
        let status = Remote::named(name).status();
        output::started(&status.map_err(|error| (error.to_string(), FAILED))?);
    }
    Ok(ExitCode::SUCCESS)
}

/// Becomes the relay of the program (see the library), so that its end is the end of this command.
fn exec(remote: &Remote, host: &str, command: &[OsString]) -> Outcome {
    let [program, arguments @ ..] = command else {
        return Err(("which program?".to_owned(), EXEC_FAILED));
    };
    let mut command = remote
        .command(host, program)
        .map_err(|error| (error.to_string(), EXEC_FAILED))?;
    // Returns only if it fails, and then in the process that was to be the program.
    let error = command.args(arguments).exec();
    let code = match error.raw_os_error() {
        Some(libc::ENOENT) => NOT_FOUND,
        Some(libc::EACCES | libc::ENOEXEC) => NOT_EXECUTABLE,
        Some(_) | None => EXEC_FAILED,
    };
    Err((format!("{}: {error}", program.display()), code))
}

impl LinkArguments {
    fn request(self) -> Request {
        Request::Link {
            left: self.left,
            right: self.right,
            change: LinkChange {
                delay: self.delay,
                jitter: self.jitter,
                loss: self.loss,
                rate: self.rate.map(|Rate(rate)| rate),
            },
            one_way: self.one_way,
        }
    }
}

/// `h1,h2 / h3`, however it was split into words.
fn split_groups(words: &[String]) -> Result<(Vec<String>, Vec<String>), String> {
    let text = words.join(",");
    let (left, right) = match text.split_once('/') {
        None => (text.as_str(), None),
        Some((left, right)) => (left, Some(right)),
    };
    let names = |group: &str| -> Vec<String> {
        let names = group.split(',').map(str::trim);
        names
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (left, right) = (names(left), right.map(names));
    if left.is_empty() || right.as_ref().is_some_and(Vec::is_empty) {
        return Err("name hosts on both sides of the slash: lab cut h1,h2 / h3".to_owned());
    }
    Ok((left, right.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(words: &[&str], left: &[&str], right: &[&str]) {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let (found_left, found_right) = split_groups(&words).expect("a cut");
        assert_eq!((found_left, found_right), (own(left), own(right)));
    }

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn groups_are_split_at_the_slash_with_and_without_spaces() {
        check(&["h1,h2", "/", "h3"], &["h1", "h2"], &["h3"]);
        check(&["h1,h2/h3,h4"], &["h1", "h2"], &["h3", "h4"]);
        check(&["h1", "h2", "/", "h3", "h4"], &["h1", "h2"], &["h3", "h4"]);
        check(&["h1"], &["h1"], &[]);
        assert!(split_groups(&["/".to_owned(), "h1".to_owned()]).is_err());
        assert!(split_groups(&["h1".to_owned(), "/".to_owned()]).is_err());
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
