//! Flags that several verbs have, each defined once.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCompleter;
use wire::spec::{AppSpec, Constraint, OnPartition, Restart};

use crate::completion;
use crate::parse;

/// Flags of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// State directory of the node to talk to.
    #[arg(
        long,
        global = true,
        env = "WELKIN_STATE_DIR",
        value_name = "DIR",
        value_hint = ValueHint::DirPath,
        hide_env = true,
        help_heading = "Global options"
    )]
    pub(crate) state_dir: Option<PathBuf>,
}

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// Aligned columns.
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Names only.
    Name,
}

/// Flags of verbs that list or describe.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Output {
    /// How to show the answer.
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORM")]
    form: Option<Form>,
    /// Show each item by a template, such as '{{.name}}: {{json .labels}}'.
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "form")]
    format: Option<String>,
    /// Show ids only.
    #[arg(short, long, conflicts_with_all = ["form", "format"])]
    pub(crate) quiet: bool,
    /// Leave the headers out.
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// Show ids and commands whole, as -o wide does.
    #[arg(long)]
    no_trunc: bool,
}

impl Output {
    /// The form that was asked for; `--format json` means what `-o json` does.
    pub(crate) fn form(&self) -> Form {
        let word = self.format.as_deref();
        let named = word.and_then(|word| Form::from_str(word, true).ok());
        self.form.or(named).unwrap_or(Form::Table)
    }

    /// The template that was asked for.
    pub(crate) fn template(&self) -> Option<&str> {
        let word = self.format.as_deref()?;
        Form::from_str(word, true).is_err().then_some(word)
    }

    /// Whether what is printed is meant for a program.
    pub(crate) fn is_for_programs(&self) -> bool {
        let programs = [Form::Json, Form::Yaml, Form::Name];
        self.quiet || self.template().is_some() || programs.contains(&self.form())
    }

    /// Whether ids and commands are shown whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.no_trunc || self.form() == Form::Wide
    }

    /// For tests: a form without anything else.
    #[cfg(test)]
    pub(crate) fn of(form: Form) -> Self {
        Self {
            form: Some(form),
            ..Self::default()
        }
    }

    /// For tests: ids only, or no headers.
    #[cfg(test)]
    pub(crate) fn bare(quiet: bool, no_headers: bool) -> Self {
        Self {
            quiet,
            no_headers,
            ..Self::default()
        }
    }

    /// For tests: a template.
    #[cfg(test)]
    pub(crate) fn by_template(template: &str) -> Self {
        Self {
            format: Some(template.to_owned()),
            ..Self::default()
        }
    }
}

/// Names of apps or objects.
#[derive(Debug, Clone, Args)]
pub(crate) struct Targets {
    /// Apps, objects (app/index), or beginnings of object ids.
    #[arg(
        required = true,
        value_name = "TARGET",
        add = ArgValueCompleter::new(completion::targets)
    )]
    pub(crate) targets: Vec<String>,
}

/// Names of apps.
#[derive(Debug, Clone, Args)]
pub(crate) struct Apps {
    /// Apps.
    #[arg(
        required = true,
        value_name = "APP",
        add = ArgValueCompleter::new(completion::apps)
    )]
    pub(crate) apps: Vec<String>,
}

/// The name of one app or object.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    /// An app, an object (app/index), or the beginning of an object's id.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(completion::targets))]
    pub(crate) target: String,
}

/// The name of one node.
#[derive(Debug, Clone, Args)]
pub(crate) struct Node {
    /// A node's name, or the beginning of its id.
    #[arg(value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    pub(crate) node: String,
}

/// Again and again: flag of verbs that list.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Watching {
    /// Show it again and again, until q is pressed; once when standard output is no terminal.
    #[arg(short, long, conflicts_with_all = ["format", "quiet"])]
    pub(crate) watch: bool,
}

/// What makes a node: flags of `up` and `join`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Founding {
    /// Address to listen on for other nodes; may be given more than once.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse::listen)]
    pub(crate) listen: Vec<std::net::SocketAddr>,
    /// Name of this node; the machine's host name when absent.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Label of this node, for constraints; may be given more than once.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse::key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Do not relay for members that cannot reach each other.
    #[arg(long)]
    pub(crate) no_relay: bool,
    /// Stay in the foreground, as a service manager wants it.
    #[arg(long)]
    pub(crate) foreground: bool,
    /// Become a daemon: leave the session of whoever called.
    #[arg(long, hide = true, requires = "foreground")]
    pub(crate) detached: bool,
}

/// Terminal and input: flags of `run` and `exec`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Interaction {
    /// Pass standard input on to the program.
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Give the program a terminal.
    #[arg(short, long)]
    pub(crate) tty: bool,
}

/// What a program is given: flags of `run` and `exec`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Surroundings {
    /// Environment variable; KEY alone passes on the one of this shell.
    #[arg(short, long = "env", value_name = "KEY[=VALUE]", value_parser = parse::environment)]
    pub(crate) environment: Vec<(String, String)>,
    /// Working directory inside the object.
    #[arg(short, long = "workdir", value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// User to run as: a name, UID or UID:GID.
    #[arg(short, long)]
    pub(crate) user: Option<String>,
}

impl Surroundings {
    /// Gives the program these surroundings; what the flags do not speak of stays.
    pub(crate) fn edit(&self, program: &mut wire::spec::Program) {
        let environment = self.environment.iter().cloned();
        program.environment.extend(environment);
        if self.workdir.is_some() {
            program.directory.clone_from(&self.workdir);
        }
        if self.user.is_some() {
            program.user.clone_from(&self.user);
        }
    }

    /// The program with these surroundings.
    pub(crate) fn program(
        &self,
        arguments: &[String],
        interaction: Interaction,
    ) -> wire::spec::Program {
        let mut environment: std::collections::BTreeMap<_, _> =
            self.environment.iter().cloned().collect();
        if interaction.tty {
            let kind = std::env::var("TERM").unwrap_or_else(|_unset| "xterm".to_owned());
            environment.entry("TERM".to_owned()).or_insert(kind);
        }
        wire::spec::Program {
            arguments: arguments.to_vec(),
            environment,
            directory: self.workdir.clone(),
            user: self.user.clone(),
            terminal: interaction.tty,
            stdin: interaction.interactive,
        }
    }
}

/// How it is found out whether an object does its work: flags of `run` and `update`.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Health {
    /// How to find out whether an object does its work; `none` takes the check away.
    #[arg(long = "health", value_name = "http:PORT/PATH|tcp:PORT|COMMAND", value_parser = parse::health,
        add = ArgValueCompleter::new(completion::checks))]
    check: Option<parse::HealthFlag>,
    /// How long from one probe to the next; 10s when absent.
    #[arg(long = "health-interval", value_name = "SECONDS", value_parser = parse::duration,
        requires = "check")]
    interval: Option<Duration>,
    /// How long a probe may take; 3s when absent.
    #[arg(long = "health-timeout", value_name = "SECONDS", value_parser = parse::duration,
        requires = "check")]
    timeout: Option<Duration>,
    /// How many failures in a row make it unhealthy; 3 when absent.
    #[arg(long = "health-retries", value_name = "N", requires = "check")]
    retries: Option<u32>,
    /// How long after its start failures do not count; 30s when absent.
    #[arg(long = "health-start-period", value_name = "SECONDS", value_parser = parse::duration,
        requires = "check")]
    start_period: Option<Duration>,
}

impl Health {
    /// Another check keeps the times of the one before.
    pub(crate) fn edit(&self, spec: &mut AppSpec) {
        let Some(parse::HealthFlag(check)) = &self.check else {
            return;
        };
        let Some(check) = check.clone() else {
            spec.health = None;
            return;
        };
        let usual = wire::health::Health::new(check.clone());
        let health = spec.health.get_or_insert_with(|| usual.into());
        health.check = check;
        let spans = [
            (&mut health.interval_ms, self.interval),
            (&mut health.timeout_ms, self.timeout),
            (&mut health.start_period_ms, self.start_period),
        ];
        for (field, span) in spans {
            *field = span.map_or(*field, parse::milliseconds);
        }
        health.retries = self.retries.unwrap_or(health.retries);
    }
}

/// How many, how large, where, and what when it ends.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Shape {
    /// How many objects carry the app out; one when absent.
    #[arg(long, value_name = "N")]
    pub(crate) replicas: Option<u32>,
    /// A port on which the program listens; may be given more than once.
    #[arg(short, long = "port", value_name = "NAME=NUMBER", value_parser = parse::port)]
    ports: Vec<(String, u16)>,
    /// What to do when the program ends: no (when absent), on-failure, on-failure:RETRIES, always.
    #[arg(long, value_name = "POLICY", value_parser = parse::restart,
        add = ArgValueCompleter::new(completion::restarts))]
    restart: Option<Restart>,
    /// What each side does when the network is cut: available (when absent; each keeps it running)
    /// or once (it never runs twice), once:30s (so long until it runs elsewhere when its machine has
    /// died).
    #[arg(long, value_name = "POLICY", value_parser = parse::on_partition,
        add = ArgValueCompleter::new(completion::partition_policies))]
    on_partition: Option<OnPartition>,
    /// Cores for each object, such as 0.5; what is left over when absent.
    #[arg(long, value_name = "CORES", value_parser = parse::cores)]
    cpu: Option<u32>,
    /// Memory for each object, such as 128M; not limited when absent.
    #[arg(short, long, value_name = "BYTES", value_parser = parse::bytes)]
    memory: Option<u64>,
    /// Most processes and threads of each object.
    #[arg(long, value_name = "N")]
    processes: Option<u32>,
    /// Only on this node.
    #[arg(long, value_name = "NODE", add = ArgValueCompleter::new(completion::nodes))]
    host: Option<String>,
    /// Only on nodes where this holds, such as 'label.disk=ssd, memory>=8G'.
    #[arg(long = "constraint", value_name = "CONDITIONS", value_parser = parse::constraints)]
    constraints: Vec<Vec<Constraint>>,
    /// Prefer nodes with fewer objects of this app, even when they are busier.
    #[arg(long)]
    spread: bool,
    /// Start only once these apps have come up, such as db,cache: they run (and are healthy), or,
    /// with --restart no, have ended with 0.
    #[arg(long, value_name = "APPS", value_parser = parse::app_name, value_delimiter = ',',
        add = ArgValueCompleter::new(completion::apps))]
    after: Vec<String>,
    /// Signal that asks the program to end.
    #[arg(long, value_name = "SIGNAL", value_parser = parse::signal,
        add = ArgValueCompleter::new(completion::signals))]
    stop_signal: Option<u8>,
    /// How long the program may take to end before it is killed.
    #[arg(long, value_name = "SECONDS", value_parser = parse::duration)]
    stop_timeout: Option<Duration>,
}

impl Shape {
    /// Makes the specification what the flags say; what they do not speak of stays.
    pub(crate) fn edit(&self, spec: &mut AppSpec) {
        fn set<T: Clone>(field: &mut T, flag: Option<&T>) {
            if let Some(value) = flag {
                field.clone_from(value);
            }
        }
        set(&mut spec.replicas, self.replicas.as_ref());
        spec.ports.extend(self.ports.iter().cloned());
        set(&mut spec.restart, self.restart.as_ref());
        set(&mut spec.on_partition, self.on_partition.as_ref());
        set(&mut spec.resources.cpu_millis, self.cpu.as_ref());
        set(&mut spec.resources.memory_bytes, self.memory.as_ref());
        set(&mut spec.resources.processes, self.processes.as_ref());
        if self.host.is_some() {
            spec.placement.host.clone_from(&self.host);
        }
        if !self.constraints.is_empty() {
            spec.placement.constraints = self.constraints.concat();
        }
        spec.placement.spread |= self.spread;
        if !self.after.is_empty() {
            spec.after = self.after.iter().cloned().collect();
        }
        set(&mut spec.stop.signal, self.stop_signal.as_ref());
        let grace_ms = self.stop_timeout.map(parse::milliseconds);
        set(&mut spec.stop.grace_ms, grace_ms.as_ref());
    }
}
