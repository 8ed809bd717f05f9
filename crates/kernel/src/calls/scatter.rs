//! Calls that are put to many nodes: the answer is what came in time, and who did not answer.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use wire::call::{
    AppList, AppSummary, Apps, NodeDetail, ObjectStats, Problem, ProblemCode, Request, Response,
    Stats, StatsTable,
};
use wire::fact::ObjectFacts;
use wire::id::{AppId, NodeId};
use wire::peer::{Answer, AppBrief, AppRecord, Ask, ObjectFilter};

use super::no_such_app;
use crate::directory;
use crate::hub::{Kernel, Origin, Task};
use crate::instant::Instant;
use crate::limits::{GUARDIANS, SCATTER_DEADLINE};
use crate::patience::Manner;

/// A call that waits for many nodes.
#[derive(Debug)]
pub(crate) struct Scatter {
    origin: Origin,
    purpose: Purpose,
    /// Questions that are open.
    waiting: usize,
    objects: Vec<ObjectFacts>,
    apps: Vec<AppBrief>,
    stats: Vec<ObjectStats>,
    records: Vec<AppRecord>,
    unanswered: BTreeSet<NodeId>,
}

/// What it is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// `app/list`.
    AppList(AppList),
    /// `app/stats`.
    Stats(Stats),
    /// `node/inspect`, but for the objects.
    NodeDetail(Box<NodeDetail>),
    /// A call whose target may be the beginning of an id.
    Prefix {
        request: Box<Request>,
        prefix: String,
    },
    /// A call about an app whose record is not here.
    Fetch { request: Box<Request> },
}

impl Scatter {
    /// Who waits for it.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

impl Kernel {
    pub(super) fn scatter(
        &mut self,
        origin: Origin,
        purpose: Purpose,
        nodes: &[NodeId],
        asks: &[Ask],
    ) {
        let deadline = self.now + SCATTER_DEADLINE;
        let nodes = nodes.iter().map(|node| (*node, deadline)).collect();
        self.scatter_until(origin, purpose, nodes, BTreeSet::new(), asks);
    }

    /// The same to all who can be reached, waiting for each no longer than it has deserved: the
    /// answer names who was late.
    fn scatter_for_reading(&mut self, origin: Origin, purpose: Purpose, asks: &[Ask]) {
        let (mut nodes, mut late) = (Vec::new(), BTreeSet::new());
        for node in self.reachable() {
            if node == self.me {
                nodes.push((node, self.now + SCATTER_DEADLINE));
                continue;
            }
            match self.patience.ask(self.now, node, SCATTER_DEADLINE) {
                Manner::Until(deadline) => nodes.push((node, deadline)),
                Manner::Aside => {
                    late.insert(node);
                    for ask in asks {
                        self.ask(node, ask.clone(), Task::Forget);
                    }
                }
                Manner::Not => {
                    late.insert(node);
                }
            }
        }
        self.scatter_until(origin, purpose, nodes, late, asks);
    }

    fn scatter_until(
        &mut self,
        origin: Origin,
        purpose: Purpose,
        nodes: Vec<(NodeId, Instant)>,
        unanswered: BTreeSet<NodeId>,
        asks: &[Ask],
    ) {
        let number = self.next_task();
        let scatter = Scatter {
            origin,
            purpose,
            waiting: nodes.len() * asks.len() + 1,
            objects: Vec::new(),
            apps: Vec::new(),
            stats: Vec::new(),
            records: Vec::new(),
            unanswered,
        };
        self.scatters.insert(number, scatter);
        for (node, deadline) in nodes {
            for ask in asks {
                self.ask_until(node, ask.clone(), Task::Scatter(number), deadline);
            }
        }
        // The one more: so that it ends even when there is nobody to ask.
        self.scatter_answered(number, self.me, Some(Answer::Done));
    }

    pub(crate) fn scatter_answered(&mut self, number: u64, from: NodeId, answer: Option<Answer>) {
        let Some(scatter) = self.scatters.get_mut(&number) else {
            return;
        };
        scatter.waiting = scatter.waiting.saturating_sub(1);
        match answer {
            Some(Answer::Objects(objects)) => {
                // Only a host speaks for its objects.
                scatter
                    .objects
                    .extend(objects.into_iter().filter(|it| it.node == from));
            }
            Some(Answer::Apps(apps)) => scatter.apps.extend(apps),
            Some(Answer::Usage(stats)) => scatter.stats.extend(stats),
            Some(Answer::Record(record)) => scatter.records.extend(record.map(|it| *it)),
            Some(
                Answer::Call(_)
                | Answer::Reserved { .. }
                | Answer::Object(_)
                | Answer::Done
                | Answer::SeatTaken(_)
                | Answer::Seat(_)
                | Answer::Standing(_)
                | Answer::Later { .. },
            ) => {}
            None => {
                scatter.unanswered.insert(from);
            }
        }
        if scatter.waiting == 0
            && let Some(scatter) = self.scatters.remove(&number)
        {
            self.gathered(scatter);
        }
    }

    fn gathered(&mut self, scatter: Scatter) {
        let origin = scatter.origin;
        let unanswered: Vec<String> = scatter
            .unanswered
            .iter()
            .map(|node| self.measurement.name(*node))
            .collect();
        match scatter.purpose {
            Purpose::AppList(list) => {
                let apps = app_table(&list, scatter.apps, scatter.objects, unanswered);
                self.reply(origin, Ok(Response::AppList(apps)));
            }
            Purpose::Stats(stats) => {
                let mut objects = scatter.stats;
                if let Some(target) = &stats.target {
                    objects.retain(|it| {
                        matches(target, &it.app_name, it.index) || it.object.has_prefix(target)
                    });
                }
                objects.sort_by(|a, b| a.app_name.cmp(&b.app_name).then(a.index.cmp(&b.index)));
                self.reply(
                    origin,
                    Ok(Response::Stats(StatsTable {
                        objects,
                        unanswered,
                    })),
                );
            }
            Purpose::NodeDetail(mut detail) => {
                detail.objects = scatter.objects;
                self.reply(origin, Ok(Response::NodeInspect(*detail)));
            }
            Purpose::Prefix { request, prefix } => {
                self.prefix_found(origin, *request, &prefix, &scatter.objects);
            }
            Purpose::Fetch { request } => {
                for record in scatter.records {
                    self.take_record(record);
                }
                self.fetched_for_call(origin, *request);
            }
        }
    }

    fn prefix_found(
        &mut self,
        origin: Origin,
        request: Request,
        prefix: &str,
        objects: &[ObjectFacts],
    ) {
        match objects {
            [one] => self.retarget(origin, request, &one.app_name, one.object),
            [] => {
                let detail = alloc::format!("no app is called `{prefix}`, and no id begins so");
                let problem = Problem::new(ProblemCode::NotFound, detail).remedy("welkin ps -a");
                self.reply(origin, Err(problem));
            }
            many => {
                let ids: Vec<String> = many.iter().take(5).map(|it| it.object.short()).collect();
                let detail = alloc::format!(
                    "{} objects begin with `{prefix}`: {}",
                    many.len(),
                    ids.join(", ")
                );
                let problem = Problem::new(ProblemCode::Ambiguous, detail)
                    .remedy("write more characters of the id");
                self.reply(origin, Err(problem));
            }
        }
    }

    pub(super) fn app_list(&mut self, origin: Origin, list: AppList) {
        let asks = [
            Ask::Objects {
                all: true,
                filter: ObjectFilter::Every,
            },
            Ask::Apps,
        ];
        self.scatter_for_reading(origin, Purpose::AppList(list), &asks);
    }

    pub(super) fn stats(&mut self, origin: Origin, stats: Stats) {
        let asks = [Ask::Usage {
            filter: ObjectFilter::Every,
        }];
        self.scatter_for_reading(origin, Purpose::Stats(stats), &asks);
    }

    pub(super) fn find_prefix(&mut self, origin: Origin, request: Request, prefix: String) {
        let filter = ObjectFilter::Prefix(prefix.clone());
        let purpose = Purpose::Prefix {
            request: Box::new(request),
            prefix,
        };
        let nodes = self.reachable();
        self.scatter(
            origin,
            purpose,
            &nodes,
            &[Ask::Objects { all: true, filter }],
        );
    }

    /// Looks for the newest record of an app at the other guardians, then answers.
    pub(super) fn fetch_then(&mut self, origin: Origin, request: Request, app: AppId) {
        let may_answer = |node: &NodeId| self.is_reachable(*node) || self.is_unheard(*node);
        let mut nodes = directory::rank(app, self.auth.members().filter(may_answer));
        nodes.retain(|node| *node != self.me);
        nodes.truncate(GUARDIANS);
        let purpose = Purpose::Fetch {
            request: Box::new(request),
        };
        self.scatter(origin, purpose, &nodes, &[Ask::FetchRecord(app)]);
    }

    fn fetched_for_call(&mut self, origin: Origin, mut request: Request) {
        if let Request::Run(run) = request {
            return self.run_here(origin, run);
        }
        if let Request::Apply(apply) = request {
            return self.apply_here(origin, apply);
        }
        let text = super::target_of(&mut request).map(|text| text.clone());
        let target = text.as_deref().map(super::Target::parse);
        let (Some(text), Some(Ok(target))) = (text, target) else {
            return;
        };
        let record = self.directory.get(target.app);
        if record.is_some_and(|record| record.wanted.spec.is_some()) {
            self.supervision.touch(target.app);
            self.with_record(origin, request, &target);
        } else if matches!(origin, Origin::Caller(_)) && super::may_be_prefix(&text) {
            self.find_prefix(origin, request, text);
        } else {
            self.reply(origin, Err(no_such_app(&target.name)));
        }
    }
}

/// Whether `web` or `web/0` means this object.
fn matches(target: &str, app_name: &str, index: u32) -> bool {
    match target.split_once('/') {
        None => target == app_name,
        Some((name, slot)) => name == app_name && slot.parse() == Ok(index),
    }
}

/// Of two nodes that hold themselves for the supervisor of an app, one knows its last wish.
fn newest_of(briefs: Vec<AppBrief>) -> BTreeMap<AppId, AppBrief> {
    let mut newest: BTreeMap<AppId, AppBrief> = BTreeMap::new();
    for brief in briefs {
        let is_newer = newest
            .get(&brief.app)
            .is_none_or(|other| brief.wanted.version > other.wanted.version);
        if is_newer {
            newest.insert(brief.app, brief);
        }
    }
    newest
}

fn app_table(
    list: &AppList,
    briefs: Vec<AppBrief>,
    mut objects: Vec<ObjectFacts>,
    unanswered: Vec<String>,
) -> Apps {
    let mut newest = newest_of(briefs);
    if let Some(target) = &list.target {
        let named = target
            .split_once('/')
            .map_or(target.as_str(), |(name, _)| name);
        objects
            .retain(|it| matches(target, &it.app_name, it.index) || it.object.has_prefix(target));
        let with_objects: BTreeSet<AppId> = objects.iter().map(|it| it.app).collect();
        newest.retain(|app, brief| {
            let name = brief.wanted.spec.as_ref().map(|spec| spec.name.as_str());
            name == Some(named) || with_objects.contains(app)
        });
    }
    let mut running: BTreeMap<AppId, (u32, u32)> = BTreeMap::new();
    for facts in &objects {
        let count = running.entry(facts.app).or_default();
        count.0 += u32::from(facts.serves());
        count.1 += u32::from(facts.phase.is_alive());
    }
    let summary = |brief: AppBrief| {
        let spec = brief.wanted.spec?;
        let (runs, lives) = running.get(&brief.app).copied().unwrap_or_default();
        let shown = list.all
            || lives > 0
            || brief.trouble.is_some()
            || brief.next.is_some()
            || !is_over(&spec, &brief.app, &objects);
        shown.then_some(AppSummary {
            app: brief.app,
            name: spec.name,
            wanted: if brief.wanted.stopped {
                0
            } else {
                spec.replicas
            },
            stopped: brief.wanted.stopped,
            running: runs,
            command: spec.program.arguments,
            restart: spec.restart,
            ports: spec.ports,
            created: brief.wanted.created,
            trouble: brief.trouble,
            waiting: brief.waiting,
            next: brief.next,
        })
    };
    let mut apps: Vec<AppSummary> = newest.into_values().filter_map(summary).collect();
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    if !list.all {
        objects.retain(|facts| facts.phase.is_alive());
    }
    objects.sort_by(|a, b| {
        (&a.app_name, a.index, a.created, a.object).cmp(&(
            &b.app_name,
            b.index,
            b.created,
            b.object,
        ))
    });
    Apps {
        apps,
        objects,
        unanswered,
    }
}

/// Whether an app has nothing more to do: all of its objects have ended.
fn is_over(spec: &wire::spec::AppSpec, app: &AppId, objects: &[ObjectFacts]) -> bool {
    let mut own = objects.iter().filter(|it| it.app == *app).peekable();
    let recurs = spec
        .schedule
        .as_ref()
        .is_some_and(wire::job::Schedule::recurs);
    spec.restart != wire::spec::Restart::Always
        && !recurs
        && own.peek().is_some()
        && own.all(|it| !it.phase.is_alive())
}

/// A problem that is not one of the kernel's making.
pub(super) fn conflict(detail: String) -> Problem {
    Problem::new(ProblemCode::Conflict, detail)
}
