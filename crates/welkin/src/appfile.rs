//! Files that say what apps are to be, in the words of the flags of `welkin run`.
//!
//! ```toml
//! name = "web"
//! run = ["python3", "-m", "http.server", "8000"]
//! replicas = 3
//! restart = "always"
//! cpu = "0.5"
//! memory = "128M"
//! ports.http = 8000
//! env.MODE = "test"
//! health.check = "http:8000/"
//! ```
//!
//! One app at the top, or several as `[[app]]`. The same in JSON, where several are a list. Whatever
//! is left out is as it is without the flag. What is wrong is said with its line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Value;
use wire::health::{Check, Health};
use wire::id::UnixMillis;
use wire::spec::{AppSpec, Constraint, OnPartition, Placement, Program, Resources, Restart, Stop};

use crate::output::human;
use crate::{parse, schedule};

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// From 1.
    pub(crate) line: usize,
    /// From 1.
    pub(crate) column: usize,
    /// What is wrong.
    pub(crate) detail: String,
    /// What to write instead; may be empty.
    pub(crate) remedy: String,
}

/// An app as it is written. Every word has a flag of the same name.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Form {
    #[serde(deserialize_with = "name")]
    name: String,
    #[serde(deserialize_with = "words")]
    run: Vec<String>,
    #[serde(default)]
    replicas: Option<u32>,
    #[serde(default, deserialize_with = "restart")]
    restart: Option<Restart>,
    #[serde(default, deserialize_with = "on_partition")]
    on_partition: Option<OnPartition>,
    #[serde(default, deserialize_with = "cores")]
    cpu: Option<u32>,
    #[serde(default, deserialize_with = "bytes")]
    memory: Option<u64>,
    #[serde(default)]
    processes: Option<u32>,
    #[serde(default)]
    host: Option<String>,
    #[serde(default, alias = "constraint", deserialize_with = "constraints")]
    constraints: Vec<Constraint>,
    #[serde(default)]
    spread: bool,
    #[serde(default, alias = "port", deserialize_with = "ports")]
    ports: BTreeMap<String, u16>,
    #[serde(default, deserialize_with = "environment")]
    env: BTreeMap<String, String>,
    #[serde(default)]
    workdir: Option<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    tty: bool,
    #[serde(default)]
    interactive: bool,
    #[serde(default, deserialize_with = "signal")]
    stop_signal: Option<u8>,
    #[serde(default, alias = "grace", deserialize_with = "span")]
    stop_timeout: Option<u32>,
    #[serde(default)]
    rm: bool,
    #[serde(default)]
    health: Option<HealthForm>,
    #[serde(default, deserialize_with = "app_names")]
    after: BTreeSet<String>,
    #[serde(default, deserialize_with = "moment")]
    at: Option<UnixMillis>,
    #[serde(default, deserialize_with = "interval")]
    every: Option<u64>,
    #[serde(default, deserialize_with = "expression")]
    cron: Option<String>,
    #[serde(default, deserialize_with = "deadline")]
    deadline: Option<u64>,
}

/// How the health of objects is found out, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct HealthForm {
    #[serde(deserialize_with = "check")]
    check: Check,
    #[serde(default, deserialize_with = "span")]
    interval: Option<u32>,
    #[serde(default, deserialize_with = "span")]
    timeout: Option<u32>,
    #[serde(default)]
    retries: Option<u32>,
    #[serde(default, deserialize_with = "span")]
    start_period: Option<u32>,
}

impl From<HealthForm> for Health {
    fn from(form: HealthForm) -> Self {
        let usual = Self::new(form.check);
        Self {
            interval_ms: form.interval.unwrap_or(usual.interval_ms),
            timeout_ms: form.timeout.unwrap_or(usual.timeout_ms),
            retries: form.retries.unwrap_or(usual.retries),
            start_period_ms: form.start_period.unwrap_or(usual.start_period_ms),
            ..usual
        }
    }
}

impl Form {
    /// How many schedules it says.
    fn times(&self) -> usize {
        let said = [self.at.is_some(), self.every.is_some(), self.cron.is_some()];
        said.into_iter().filter(|is_said| *is_said).count()
    }
}

impl From<Form> for AppSpec {
    fn from(form: Form) -> Self {
        let (limits, stop) = (Resources::default(), Stop::default());
        Self {
            name: form.name,
            replicas: form.replicas.unwrap_or(1),
            program: Program {
                arguments: form.run,
                environment: form.env,
                directory: form.workdir,
                user: form.user,
                terminal: form.tty,
                stdin: form.interactive,
            },
            ports: form.ports,
            resources: Resources {
                cpu_millis: form.cpu.unwrap_or(limits.cpu_millis),
                memory_bytes: form.memory.unwrap_or(limits.memory_bytes),
                processes: form.processes.unwrap_or(limits.processes),
            },
            restart: form.restart.unwrap_or_default(),
            placement: Placement {
                host: form.host,
                constraints: form.constraints,
                spread: form.spread,
            },
            stop: Stop {
                signal: form.stop_signal.unwrap_or(stop.signal),
                grace_ms: form.stop_timeout.unwrap_or(stop.grace_ms),
            },
            remove_when_done: form.rm,
            on_partition: form.on_partition.unwrap_or_default(),
            health: form.health.map(|form| Health::from(form).into()),
            after: form.after,
            schedule: schedule::one_of(form.at, form.every, form.cron),
            deadline_ms: form.deadline,
        }
    }
}

/// A file of several apps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Several {
    app: Vec<Form>,
}

/// Reads a file.
pub(crate) fn read(text: &str) -> Result<Vec<AppSpec>, Fault> {
    let mut begin = text.trim_start().chars().filter(|c| !c.is_whitespace());
    let forms = match (begin.next(), begin.next()) {
        (Some('{'), _) | (Some('['), Some('{' | ']')) => read_json(text)?,
        (Some(_), _) => read_toml(text)?,
        (None, _) => Vec::new(),
    };
    if forms.is_empty() {
        return Err(Fault {
            line: 1,
            column: 1,
            detail: "there is no app in it".to_owned(),
            remedy: "name = \"web\" and run = [\"PROGRAM\", \"ARGUMENT\"]".to_owned(),
        });
    }
    if let Some(form) = forms.iter().find(|form| form.times() > 1) {
        let detail = format!("{} has more than one of at, every and cron", form.name);
        return Err(Fault {
            remedy: "one of them; for more make more apps".to_owned(),
            detail,
            ..Fault::at_word(text, &["cron", "every"])
        });
    }
    Ok(forms.into_iter().map(AppSpec::from).collect())
}

fn read_toml(text: &str) -> Result<Vec<Form>, Fault> {
    let fault = |error: toml::de::Error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default();
        let piece = error.span().and_then(|span| text.get(span));
        let piece = piece.filter(|piece| !piece.contains('\n'));
        Fault::new((line, column.chars().count() + 1), error.message(), piece)
    };
    let table: toml::Table = toml::from_str(text).map_err(fault)?;
    if table.contains_key("app") {
        let several: Several = toml::from_str(text).map_err(fault)?;
        return Ok(several.app);
    }
    if table.is_empty() {
        return Ok(Vec::new());
    }
    toml::from_str(text).map(|one| vec![one]).map_err(fault)
}

fn read_json(text: &str) -> Result<Vec<Form>, Fault> {
    let fault = |error: serde_json::Error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let message = error.to_string();
        let message = message.strip_suffix(&place).unwrap_or(&message);
        Fault::new((error.line().max(1), error.column().max(1)), message, None)
    };
    if text.trim_start().starts_with('[') {
        return serde_json::from_str(text).map_err(fault);
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(fault)?;
    if value.get("app").is_some() {
        let several: Several = serde_json::from_str(text).map_err(fault)?;
        return Ok(several.app);
    }
    serde_json::from_str(text)
        .map(|one| vec![one])
        .map_err(fault)
}

impl Fault {
    /// At the first line that begins with one of these words, the first of them that there is.
    fn at_word(text: &str, words: &[&str]) -> Self {
        let begins = |line: &str, word: &str| {
            let line = line.trim_start().trim_start_matches(['{', '"', '\'']);
            line.starts_with(word)
        };
        let find = |word: &&str| text.lines().position(|line| begins(line, word));
        Self {
            line: words.iter().find_map(find).unwrap_or(0) + 1,
            column: 1,
            detail: String::new(),
            remedy: String::new(),
        }
    }

    /// Says in our words what a parser found.
    fn new((line, column): (usize, usize), message: &str, piece: Option<&str>) -> Self {
        let (detail, remedy) = reworded(message, piece.unwrap_or("this"));
        Self {
            line,
            column,
            detail,
            remedy,
        }
    }
}

/// What is wrong with this piece, and what to write instead.
fn reworded(message: &str, piece: &str) -> (String, String) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    if message.starts_with("unknown field") {
        // What is known is in the message, in the order in which it is declared.
        let known: Vec<&str> = quoted.collect();
        let nearest = known
            .iter()
            .map(|word| (strsim::damerau_levenshtein(first, word), *word))
            .min()
            .filter(|(distance, _)| *distance <= 3.min(first.len() / 2));
        let remedy = match nearest {
            Some((_, word)) => format!("{word} = …"),
            None => format!("one of {}", known.join(", ")),
        };
        return (format!("there is no `{first}`"), remedy);
    }
    if message.starts_with("missing field") {
        let remedy = match first {
            "run" => "run = [\"PROGRAM\", \"ARGUMENT\"]",
            "check" => "check = \"http:8080/\"",
            _ => "name = \"web\"",
        };
        return (format!("`{first}` is missing"), remedy.to_owned());
    }
    // Parsers of values say what is wrong and what to write in one sentence.
    match message.split_once("write ") {
        Some((detail, remedy)) => {
            let detail = detail.trim_end_matches([' ', ':', ';']);
            let detail = if detail.is_empty() {
                format!("{piece} cannot be read")
            } else {
                detail.to_owned()
            };
            (detail, remedy.to_owned())
        }
        None => {
            let message = message.replace('\n', ", ");
            let plain = message.replace("expected u32", "expected a whole number, 0 or more");
            (plain, String::new())
        }
    }
}

/// Text, or a number as text.
struct Scalar;

impl Visitor<'_> for Scalar {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
    fn visit_i64<E: de::Error>(self, number: i64) -> Result<String, E> {
        Ok(number.to_string())
    }
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<String, E> {
        Ok(number.to_string())
    }
    fn visit_f64<E: de::Error>(self, number: f64) -> Result<String, E> {
        Ok(number.to_string())
    }
    fn visit_bool<E: de::Error>(self, is_so: bool) -> Result<String, E> {
        Ok(is_so.to_string())
    }
}

/// A text or a number, wherever it stands.
#[derive(Debug)]
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalar).map(Self)
    }
}

/// What the parser of the flag makes of it.
fn by<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let Text(text) = Text::deserialize(deserializer)?;
    parse(&text).map_err(de::Error::custom)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    by(deserializer, parse::app_name)
}

fn on_partition<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<OnPartition>, D::Error> {
    by(deserializer, parse::on_partition).map(Some)
}

fn restart<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Restart>, D::Error> {
    by(deserializer, parse::restart).map(Some)
}

fn cores<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    by(deserializer, parse::cores).map(Some)
}

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    by(deserializer, parse::bytes).map(Some)
}

fn signal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    by(deserializer, parse::signal).map(Some)
}

fn check<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Check, D::Error> {
    by(deserializer, parse::check)
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<UnixMillis>, D::Error> {
    by(deserializer, schedule::fixed_moment).map(Some)
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    by(deserializer, schedule::interval).map(Some)
}

fn deadline<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    by(deserializer, schedule::deadline).map(Some)
}

fn expression<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    by(deserializer, |text| Ok(text.to_owned())).map(Some)
}

fn span<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let read = |text: &str| parse::duration(text).map(parse::milliseconds);
    by(deserializer, read).map(Some)
}

/// The program and its arguments.
fn words<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Words;
    impl<'de> Visitor<'de> for Words {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let words: Vec<String> = text
                .split_whitespace()
                .map(|word| Value::from(word).to_string())
                .collect();
            let words = words.join(", ");
            let message = format!("the program is a list of words: write run = [{words}]");
            Err(E::custom(message))
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut words = Vec::new();
            while let Some(Text(word)) = list.next_element()? {
                words.push(word);
            }
            if words.first().is_none_or(String::is_empty) {
                let message = "there is no program: write run = [\"PROGRAM\", \"ARGUMENT\"]";
                return Err(de::Error::custom(message));
            }
            Ok(words)
        }
    }
    deserializer.deserialize_any(Words)
}

/// A list of conditions, or a text with commas between them as the flag has it.
fn constraints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Constraint>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<Constraint>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of conditions")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            parse::constraints(text).map_err(E::custom)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut constraints = Vec::new();
            while let Some(Text(text)) = list.next_element()? {
                constraints.push(text.parse().map_err(de::Error::custom)?);
            }
            Ok(constraints)
        }
    }
    deserializer.deserialize_any(List)
}

/// A list of names, or a text with commas between them as the flag has it.
fn app_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeSet<String>, D::Error> {
    struct Names;
    impl<'de> Visitor<'de> for Names {
        type Value = BTreeSet<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of apps")
        }
        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            let names = text.split(',').map(|name| parse::app_name(name.trim()));
            names.collect::<Result<_, _>>().map_err(E::custom)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut names = BTreeSet::new();
            while let Some(Text(name)) = list.next_element()? {
                names.insert(parse::app_name(&name).map_err(de::Error::custom)?);
            }
            Ok(names)
        }
    }
    deserializer.deserialize_any(Names)
}

/// A table whose values are read one by one.
struct Table<T>(fn(&str, &str) -> Result<T, String>);

impl<'de, T> Visitor<'de> for Table<T> {
    type Value = BTreeMap<String, T>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table, such as ports.http = 8000")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some((key, Text(text))) = map.next_entry::<String, Text>()? {
            let value = (self.0)(&key, &text).map_err(de::Error::custom)?;
            values.insert(key, value);
        }
        Ok(values)
    }
}

fn ports<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, u16>, D::Error> {
    let read = |key: &str, text: &str| {
        let port = parse::port(&format!("{key}={text}"));
        port.map(|(_, number)| number).map_err(|_wrong| {
            format!("`{key}` is no port: write a name and a number, as in ports.http = 8000")
        })
    };
    deserializer.deserialize_any(Table(read))
}

fn environment<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    deserializer.deserialize_any(Table(|_, text| Ok(text.to_owned())))
}

/// One word of a specification as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Field {
    /// The word, with dots where it is in a table.
    pub(crate) key: String,
    /// What stands there.
    pub(crate) value: Value,
    /// It is the same when it is left out.
    pub(crate) is_default: bool,
}

impl Field {
    /// The value as people read it.
    pub(crate) fn text(&self) -> String {
        let text = self.value.as_str();
        text.map_or_else(|| self.value.to_string(), str::to_owned)
    }
}

/// Every word of a specification, in the order of a file.
pub(crate) fn fields(spec: &AppSpec) -> Vec<Field> {
    // Each field is named, here and below, so that none can be forgotten.
    let AppSpec {
        name,
        replicas,
        program,
        ports,
        resources,
        restart,
        placement,
        stop,
        remove_when_done,
        on_partition,
        health,
        after,
        schedule,
        deadline_ms,
    } = spec;
    let mut fields = vec![
        field("name", name.as_str(), false),
        field("run", program.arguments.clone(), false),
        field("replicas", *replicas, *replicas == 1),
        field(
            "restart",
            human::restart(*restart),
            *restart == Restart::default(),
        ),
        field(
            "on-partition",
            human::on_partition(*on_partition),
            *on_partition == OnPartition::default(),
        ),
    ];
    fields.extend(size(resources));
    fields.extend(place(placement));
    fields.extend(surroundings(program));
    fields.extend(ending(stop));
    fields.push(field("rm", *remove_when_done, !remove_when_done));
    let names: Vec<String> = after.iter().cloned().collect();
    fields.push(field("after", names, after.is_empty()));
    let times = schedule.as_ref().map(schedule::word);
    fields.extend(times.map(|(word, value)| field(word, value, false)));
    let deadline = deadline_ms.map(schedule::span);
    fields.extend(deadline.map(|deadline| field("deadline", deadline, false)));
    fields.extend(health.as_deref().into_iter().flat_map(health_fields));
    for (port, number) in ports {
        let word = format!("ports.{}", key(port));
        fields.push(field(&word, u32::from(*number), false));
    }
    for (variable, value) in &program.environment {
        let word = format!("env.{}", key(variable));
        fields.push(field(&word, value.as_str(), false));
    }
    fields
}

fn field(key: &str, value: impl Into<Value>, is_default: bool) -> Field {
    Field {
        key: key.to_owned(),
        value: value.into(),
        is_default,
    }
}

fn optional(key: &str, text: Option<&String>) -> Field {
    field(key, text.map_or("", String::as_str), text.is_none())
}

fn size(resources: &Resources) -> [Field; 3] {
    let usual = Resources::default();
    let Resources {
        cpu_millis,
        memory_bytes,
        processes,
    } = *resources;
    let memory = exact_bytes(memory_bytes);
    [
        field("cpu", resources.cores(), cpu_millis == usual.cpu_millis),
        field("memory", memory, memory_bytes == usual.memory_bytes),
        field("processes", processes, processes == usual.processes),
    ]
}

fn place(placement: &Placement) -> [Field; 3] {
    let Placement {
        host,
        constraints,
        spread,
    } = placement;
    let conditions: Vec<String> = constraints.iter().map(ToString::to_string).collect();
    [
        optional("host", host.as_ref()),
        field("constraints", conditions, constraints.is_empty()),
        field("spread", *spread, !spread),
    ]
}

fn surroundings(program: &Program) -> [Field; 4] {
    let Program {
        arguments: _,
        environment: _,
        directory,
        user,
        terminal,
        stdin,
    } = program;
    [
        optional("workdir", directory.as_ref()),
        optional("user", user.as_ref()),
        field("tty", *terminal, !terminal),
        field("interactive", *stdin, !stdin),
    ]
}

fn ending(stop: &Stop) -> [Field; 2] {
    let usual = Stop::default();
    let Stop { signal, grace_ms } = *stop;
    let name = human::signal(signal);
    // Those in real time have no name.
    let value = if name.starts_with("SIG") {
        Value::from(name)
    } else {
        Value::from(u32::from(signal))
    };
    let grace = humantime::format_duration(Duration::from_millis(grace_ms.into()));
    [
        field("stop-signal", value, signal == usual.signal),
        field(
            "stop-timeout",
            grace.to_string(),
            grace_ms == usual.grace_ms,
        ),
    ]
}

fn health_fields(health: &Health) -> [Field; 5] {
    let usual = Health::new(health.check.clone());
    let Health {
        check,
        interval_ms,
        timeout_ms,
        retries,
        start_period_ms,
    } = health;
    let span = |key: &str, millis: u32, usual: u32| {
        let span = humantime::format_duration(Duration::from_millis(millis.into()));
        field(key, span.to_string(), millis == usual)
    };
    [
        field("health.check", check.to_string(), false),
        span("health.interval", *interval_ms, usual.interval_ms),
        span("health.timeout", *timeout_ms, usual.timeout_ms),
        field("health.retries", *retries, *retries == usual.retries),
        span(
            "health.start-period",
            *start_period_ms,
            usual.start_period_ms,
        ),
    ]
}

/// The file that says all of these; what is as usual is left out.
pub(crate) fn write(specs: &[&AppSpec]) -> String {
    let mut text = String::new();
    for spec in specs {
        if specs.len() > 1 {
            let between = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{between}[[app]]\n"));
        }
        for field in fields(spec).iter().filter(|field| !field.is_default) {
            text.push_str(&format!("{} = {}\n", field.key, field.value));
        }
    }
    text
}

/// A key as TOML has it (TOML 1.0, "Keys").
fn key(word: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !word.is_empty() && word.chars().all(is_bare) {
        return word.to_owned();
    }
    let quoted = serde_json::Value::from(word).to_string();
    // The one control character that JSON lets stand as it is.
    quoted.replace('\u{7f}', "\\u007f")
}

/// An amount that is read back as the same: `128M`, `1000`.
fn exact_bytes(amount: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let exact = units
        .iter()
        .find(|(_, bits)| amount != 0 && amount.trailing_zeros() >= *bits);
    match exact {
        Some((unit, bits)) => format!("{}{unit}", amount >> bits),
        None => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use wire::job::Schedule;

    use super::*;
    use expect_test::{Expect, expect};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    fn spec_of(text: &str) -> AppSpec {
        let mut specs = read(text).unwrap();
        assert_eq!(specs.len(), 1);
        specs.remove(0)
    }

    const WHOLE: &str = r#"
        name = "web"
        run = ["server", "-v"]
        replicas = 3
        restart = "on-failure:2"
        cpu = 0.5
        memory = "128M"
        processes = 10
        host = "atlas"
        constraints = ["arch=x86_64", "memory>=8G"]
        spread = true
        workdir = "/srv"
        user = "www"
        stop-signal = "INT"
        grace = 2.5
        after = ["db", "cache"]
        ports.http = 8080
        [env]
        MODE = "a=b"
        PORT = 8080
    "#;

    #[test]
    fn a_file_has_the_words_of_the_flags() {
        let written = write(&[&spec_of(WHOLE)]);
        expect![[r#"
            name = "web"
            run = ["server", "-v"]
            replicas = 3
            restart = "on-failure:2"
            cpu = "0.5"
            memory = "128M"
            processes = 10
            host = "atlas"
            constraints = ["arch=x86_64", "memory>=8G"]
            spread = true
            workdir = "/srv"
            user = "www"
            stop-signal = "SIGINT"
            stop-timeout = "2s 500ms"
            after = ["cache", "db"]
            ports.http = 8080
            env.MODE = "a=b"
            env.PORT = "8080"
        "#]]
        .assert_eq(&written);
        assert_eq!(spec_of(&written), spec_of(WHOLE));
    }

    #[test]
    fn json_is_the_same_and_several_are_a_list() {
        let json = r#"{"name":"web","run":["server","-v"],"replicas":3,"restart":"on-failure:2",
            "cpu":0.5,"memory":"128M","processes":10,"host":"atlas","spread":true,
            "constraint":"arch=x86_64, memory>=8G","workdir":"/srv","user":"www",
            "stop-signal":2,"stop-timeout":"2500ms","after":"cache, db","port":{"http":8080},
            "env":{"MODE":"a=b","PORT":8080}}"#;
        assert_eq!(spec_of(json), spec_of(WHOLE));
        let names = |text: &str| -> Vec<String> {
            let specs = read(text).unwrap();
            specs.into_iter().map(|it| it.name).collect()
        };
        let two = "[[app]]\nname = \"a\"\nrun = [\"x\"]\n[[app]]\nname = \"b\"\nrun = [\"y\"]\n\
                   ports.http = 80\n";
        assert_eq!(names(two), ["a", "b"]);
        let list = r#"[{"name":"a","run":["x"]}, {"name":"b","run":["y"]}]"#;
        assert_eq!(names(list), ["a", "b"]);
        let table = r#"{"app": [{"name":"a","run":["x"]}, {"name":"b","run":["y"]}]}"#;
        assert_eq!(names(table), ["a", "b"]);
        let written = write(&read(two).unwrap().iter().collect::<Vec<_>>());
        assert_eq!(read(&written), read(two));
    }

    fn check(text: &str, expect: Expect) {
        let fault = read(text).unwrap_err();
        let (line, column) = (fault.line, fault.column);
        expect.assert_eq(&format!(
            "{line}:{column}: {}; try {}",
            fault.detail, fault.remedy
        ));
    }

    /// The same below the two lines that every app has.
    fn check_below(text: &str, expect: Expect) {
        check(&format!("name = \"web\"\nrun = [\"x\"]\n{text}\n"), expect);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place_and_what_to_write() {
        check_below(
            "memroy = \"1G\"",
            expect!["3:1: there is no `memroy`; try memory = …"],
        );
        check_below(
            "image = \"y\"",
            expect![
                "3:1: there is no `image`; try one of name, run, replicas, restart, on-partition, cpu, memory, processes, host, constraint, constraints, spread, port, ports, env, workdir, user, tty, interactive, stop-signal, grace, stop-timeout, rm, health, after, at, every, cron, deadline"
            ],
        );
        check_below(
            "memory = \"much\"",
            expect![[
                r#"3:10: "much" cannot be read; try an amount of memory, for example 128M or 2G"#
            ]],
        );
        check_below(
            "every = \"1h\"\ncron = \"@daily\"",
            expect![
                "4:1: web has more than one of at, every and cron; try one of them; for more make more apps"
            ],
        );
        check_below(
            "every = 0.2",
            expect![
                "3:9: an app runs at most once a second; try 1s or more, or --restart always for what is to run all the time"
            ],
        );
        check_below(
            "at = \"03:00\"",
            expect![[
                r#"3:6: "03:00" cannot be read; try a time with its offset, for example 2026-03-01T03:00:00Z"#
            ]],
        );
        check_below(
            "restart = \"maybe\"",
            expect![[
                r#"3:11: "maybe" cannot be read; try no, always, on-failure or on-failure:5"#
            ]],
        );
        check_below(
            "replicas = -1",
            expect!["3:12: invalid value: integer `-1`, expected a whole number, 0 or more; try "],
        );
        check_below(
            "ports.http = 99999",
            expect!["3:1: `http` is no port; try a name and a number, as in ports.http = 8000"],
        );
        check_below(
            "constraints = [\"memory=>8G\"]",
            expect!["3:15: `>8G` is not an amount of memory; try for example 0.5 or 8G"],
        );
        check(
            "name = \"web\"\nrun = \"sleep 10\"\n",
            expect![[r#"2:7: the program is a list of words; try run = ["sleep", "10"]"#]],
        );
        check(
            "name = \"Web\"\nrun = [\"x\"]\n",
            expect![
                "1:8: a name is 1 to 63 lower-case letters, digits and dashes, and begins and ends with a letter or a digit; try for example web-1"
            ],
        );
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_write() {
        check(
            "name = \"web\"\n",
            expect![[r#"1:1: `run` is missing; try run = ["PROGRAM", "ARGUMENT"]"#]],
        );
        check(
            "name = \"web\nrun = [\"x\"]\n",
            expect![[r#"1:12: invalid basic string, expected `"`; try "#]],
        );
        check(
            "name = \"x\"\n[[app]]\nname = \"web\"\n",
            expect![[r#"2:1: `run` is missing; try run = ["PROGRAM", "ARGUMENT"]"#]],
        );
        check(
            "app = []",
            expect![[
                r#"1:1: there is no app in it; try name = "web" and run = ["PROGRAM", "ARGUMENT"]"#
            ]],
        );
        check(
            "{\"name\": \"web\",\n \"runs\": [\"x\"]}",
            expect!["2:7: there is no `runs`; try run = …"],
        );
        check(
            "{\"name\": \"web\"",
            expect!["1:14: EOF while parsing an object; try "],
        );
        check(
            "# nothing\n",
            expect![[
                r#"1:1: there is no app in it; try name = "web" and run = ["PROGRAM", "ARGUMENT"]"#
            ]],
        );
        check(
            "",
            expect![[
                r#"1:1: there is no app in it; try name = "web" and run = ["PROGRAM", "ARGUMENT"]"#
            ]],
        );
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z./-]{1,8}", any::<String>()]
    }

    fn constraint() -> impl Strategy<Value = Constraint> {
        let text = prop_oneof![
            Just("arch!=aarch64".to_owned()),
            Just("memory>=8.5G".to_owned()),
            ".{0,6}".prop_map(|value| format!("label.disk={value}")),
        ];
        text.prop_map(|text| text.parse().unwrap())
    }

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        prop_oneof![
            (0_u64..200_000_000_000_000).prop_map(|at| Schedule::At { at: UnixMillis(at) }),
            (1_000_u64..31_622_400_000).prop_map(|interval_ms| Schedule::Every { interval_ms }),
            "[ -~é\\n]{0,20}".prop_map(|expression| Schedule::Cron { expression }),
        ]
    }

    fn any_health() -> impl Strategy<Value = Health> {
        let check = prop_oneof![
            (1_u16.., "(/[a-z?=]{0,8}){1,2}").prop_map(|(port, path)| Check::Http { port, path }),
            (1_u16..).prop_map(|port| Check::Tcp { port }),
            "[a-z][ -~é\\n]{0,20}".prop_filter_map("a command", |text| text.parse().ok()),
        ];
        (check, any::<[u32; 4]>()).prop_map(|(check, numbers)| {
            let [interval_ms, timeout_ms, retries, start_period_ms] = numbers;
            Health {
                check,
                interval_ms,
                timeout_ms,
                retries,
                start_period_ms,
            }
        })
    }

    prop_compose! {
        fn program()(
            arguments in (word(), vec(any::<String>(), 0..4)),
            environment in btree_map(word(), any::<String>(), 0..4),
            directory in proptest::option::of(word()),
            user in proptest::option::of(word()),
            (terminal, stdin) in any::<(bool, bool)>(),
        ) -> Program {
            let (first, rest) = arguments;
            let mut arguments = vec![format!("x{first}")];
            arguments.extend(rest);
            Program { arguments, environment, directory, user, terminal, stdin }
        }
    }

    prop_compose! {
        fn any_spec()(
            (name, replicas) in ("[a-z][a-z0-9]{0,8}", any::<u32>()),
            program in program(),
            ports in btree_map("[a-z]{1,5}", 1..=u16::MAX, 0..3),
            (cpu_millis, memory_bytes, processes) in
                (any::<u32>(), prop_oneof![any::<u64>(), (0_u64..64).prop_map(|it| it << 30)],
                any::<u32>()),
            restart in prop_oneof![
                Just(Restart::No),
                Just(Restart::Always),
                proptest::option::of(any::<u32>())
                    .prop_map(|retries_max| Restart::OnFailure { retries_max }),
            ],
            takeover_ms in proptest::option::of(any::<u32>()),
            health in proptest::option::of(any_health()),
            host in proptest::option::of(word()),
            schedule in proptest::option::of(any_schedule()),
            deadline_ms in proptest::option::of(1_000_u64..31_622_400_000),
            after in proptest::collection::btree_set("[a-z][a-z0-9-]{0,8}[a-z]", 0..3),
            constraints in vec(constraint(), 0..3),
            (signal, grace_ms) in (1_u8..=64, any::<u32>()),
            (spread, remove_when_done) in any::<(bool, bool)>(),
        ) -> AppSpec {
            AppSpec {
                name,
                replicas,
                program,
                ports,
                resources: Resources { cpu_millis, memory_bytes, processes },
                restart,
                placement: Placement { host, constraints, spread },
                stop: Stop { signal, grace_ms },
                remove_when_done,
                on_partition: takeover_ms
                    .map_or(OnPartition::Available, |takeover_ms| OnPartition::Once { takeover_ms }),
                health: health.map(Box::new),
                after,
                schedule,
                deadline_ms,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_the_same(specs in vec(any_spec(), 1..3)) {
            let all: Vec<&AppSpec> = specs.iter().collect();
            prop_assert_eq!(read(&write(&all)), Ok(specs));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,80}") {
            let _refused = read(&text);
            let _refused = read(&format!("name = \"web\"\nrun = [\"x\"]\n{text}"));
        }
    }
}
