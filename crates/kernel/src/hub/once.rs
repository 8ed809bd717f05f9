//! Apps that never run twice: where their seats, their tenures and the rest of the kernel meet. The
//! whole protocol is in `docs/protocols/once.md`.
//!
//! ```text
//! app/run ──► seats are taken at the guardians ──► a record, as for any app
//! a slot has been promised a place ──► a proposal ──► chosen: the host is told to launch it
//! launch ──► the tenure is sought ──► held: its program is started, and the shim told until when
//! guardians change ──► seats are taken ──► a proposal ──► chosen: they vote from now on
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;

use rand::RngExt;
use wire::call::{Problem, ProblemCode};
use wire::disk::Table;
use wire::driver::{DriverReport, Tenure};
use wire::fact::{Exit, ExitReason};
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::peer::{Answer, AppRecord, Ask, Placement, Wanted};
use wire::spec::{AppSpec, OnPartition};
use wire::tenancy::{Ballot, Claim, Seat, SeatAnswer, SeatAsk, Tenancy, Title, majority};

use super::{Kernel, Origin, Task};
use crate::calls::Making;
use crate::directory;
use crate::instant::Instant;
use crate::register::{Change, Outcome, Proposer, Seats};
use crate::supervisor::Trouble;
use crate::tenure::{Event, Tenures};
use crate::world::Output;

/// Longest random pause before somebody who was outvoted tries again.
const OUTVOTED_PAUSE_MS: u64 = 400;

/// What this node does for apps that never run twice.
#[derive(Debug, Default)]
pub(crate) struct Once {
    pub(super) seats: Seats,
    pub(super) tenures: Tenures,
    proposals: BTreeMap<u64, Proposal>,
    seatings: BTreeMap<u64, Seating>,
    /// Ballots that were used or heard of.
    rounds: BTreeMap<AppId, u64>,
    /// Apps with a seat that its node does not know.
    vacant: BTreeSet<AppId>,
    /// Seats that were taken and have not voted yet.
    spare: BTreeMap<AppId, Spare>,
    /// Objects that are started once they hold a tenure.
    awaiting: BTreeSet<ObjectId>,
}

/// An attempt to change a tenancy.
#[derive(Debug)]
struct Proposal {
    app: AppId,
    born: Version,
    proposer: Proposer,
    purpose: Purpose,
}

#[derive(Debug, Clone, Copy)]
enum Purpose {
    /// A slot is to get a place: this placing, on this node.
    Home { placing: u64, node: NodeId },
    /// Other seats are to vote.
    Reseat,
}

/// Seats that may be of no generation up to that one, of the app of that birth. Whether they are of
/// the next is uncertain once they were proposed: they must not be proposed after it.
#[derive(Debug)]
struct Spare {
    born: Version,
    generation: u64,
    seats: Vec<Seat>,
}

/// Seats that are being taken.
#[derive(Debug)]
struct Seating {
    app: AppId,
    born: Version,
    waiting: BTreeSet<NodeId>,
    seats: Vec<Seat>,
    /// Why a guardian would not.
    refused: Option<Problem>,
    needed: usize,
    /// Absent when the app has seats already.
    makes: Option<(Origin, Making)>,
}

/// How long one renewal lets an object of the app run, in thousandths of a second; absent when it
/// may run twice.
pub(crate) fn term_ms(spec: &AppSpec) -> Option<u32> {
    match spec.on_partition {
        OnPartition::Available => None,
        OnPartition::Once { takeover_ms } => Some(takeover_ms / 3 * 2),
    }
}

impl Kernel {
    /// A vote on an app, for whoever makes it or changes its seats.
    pub(super) fn take_seat(&mut self, app: AppId, born: Version) -> Result<Answer, Problem> {
        let former = move |of: AppId, then: Version| of == app && then < born;
        let exists = |(of, then): (AppId, Version)| former(of, then) && !self.is_over(of, then);
        if self.once.seats.apps().any(exists) {
            let detail = "an app of that name exists already";
            return Err(Problem::new(ProblemCode::Conflict, detail).remedy("welkin ps"));
        }
        if let Some(left) = self.once.seats.tenure_left(self.now, former) {
            let seconds = left.as_secs() + 1;
            let detail =
                format!("an object of the former app may still run, for up to {seconds} s");
            let problem = Problem::new(ProblemCode::Conflict, detail);
            return Err(problem.remedy("try again then"));
        }
        let number = self.rng.random();
        if !self.once.seats.take(number, app, born) {
            let detail = "the node has no more seats";
            return Err(Problem::new(ProblemCode::Busy, detail));
        }
        self.keep_seat(number);
        Ok(Answer::SeatTaken(number))
    }

    fn keep_seat(&mut self, number: u64) {
        if let Some(stored) = self.once.seats.get(number).cloned() {
            self.write_sealed(Table::Seats, &number.to_be_bytes(), &stored);
        }
    }

    /// Always said after what was written: even a renewal rests on what was accepted before.
    pub(super) fn answer_seat(&mut self, number: u64, ask: SeatAsk) -> Answer {
        let seat = self.once.seats.get(number);
        if seat.is_some_and(|seat| self.is_over(seat.app, seat.born)) {
            // Whoever holds a tenure keeps it to its end, and gets no other.
            return Answer::Seat(Box::new(SeatAnswer::Unknown));
        }
        let (answer, is_changed) = self.once.seats.handle(self.now, number, ask);
        if is_changed {
            self.keep_seat(number);
        }
        Answer::Seat(Box::new(answer))
    }

    /// Takes the first seats of a new app; its call goes on in [`Kernel::make_seated`].
    pub(crate) fn seat_new_app(&mut self, origin: Origin, making: Making) {
        let app = AppId::of_name(&making.spec().name);
        let born = self.tick();
        self.begin_seating(app, born, Some((origin, making)));
    }

    fn begin_seating(&mut self, app: AppId, born: Version, makes: Option<(Origin, Making)>) {
        // Two sides never both make it: each needs most of its guardians. Who stands in for one that
        // is away has to make room for it later.
        let guardians = directory::guardians(app, self.lasting());
        let needed = majority(guardians.len());
        let here = guardians.iter().filter(|node| self.is_reachable(**node));
        let is_new = makes.is_some();
        let waiting: BTreeSet<NodeId> = if here.count() >= needed {
            let mut rank = directory::rank(app, self.reachable().into_iter());
            rank.truncate(guardians.len());
            rank.into_iter().collect()
        } else {
            BTreeSet::new()
        };
        let seating = Seating {
            app,
            born,
            waiting: waiting.clone(),
            seats: Vec::new(),
            refused: None,
            needed: if is_new { needed } else { guardians.len() },
            makes,
        };
        let number = self.next_task();
        self.once.seatings.insert(number, seating);
        for node in waiting {
            let ask = Ask::TakeSeat { app, born };
            self.ask(node, ask, Task::SeatTaken(number));
        }
        self.end_seating(number);
    }

    pub(super) fn seat_taken(
        &mut self,
        number: u64,
        from: NodeId,
        answer: Result<Answer, Problem>,
    ) {
        let Some(seating) = self.once.seatings.get_mut(&number) else {
            return;
        };
        seating.waiting.remove(&from);
        match answer {
            Ok(Answer::SeatTaken(number)) => {
                let node = from;
                seating.seats.push(Seat { node, number });
            }
            Err(problem) if problem.code == ProblemCode::Conflict => {
                seating.refused = Some(problem);
            }
            Ok(_) | Err(_) => {}
        }
        self.end_seating(number);
    }

    /// Goes on once everybody who was asked for a seat has answered, if there was anybody.
    fn end_seating(&mut self, number: u64) {
        let seating = self.once.seatings.get(&number);
        if !seating.is_some_and(|seating| seating.waiting.is_empty()) {
            return;
        }
        let Some(seating) = self.once.seatings.remove(&number) else {
            return;
        };
        let is_seated = seating.seats.len() >= seating.needed;
        match seating.makes {
            Some((origin, making)) if is_seated => {
                let tenancy = Tenancy {
                    seats: seating.seats,
                    generation: 0,
                    term_ms: term_ms(making.spec()).unwrap_or_default(),
                    homes: BTreeMap::new(),
                    epoch: 0,
                };
                self.make_seated(origin, making, seating.born, tenancy);
            }
            Some((origin, _)) => {
                let (has, needed) = (seating.seats.len(), seating.needed);
                let too_few = format!(
                    "{has} of the app's guardians answer, and {needed} are needed for an app that \
                     never runs twice"
                );
                let too_few = Problem::new(ProblemCode::Unreachable, too_few);
                let problem = seating.refused.unwrap_or(too_few.remedy("welkin nodes"));
                self.reply(origin, Err(problem));
            }
            None if is_seated => self.note_spare(seating),
            None => {}
        }
    }

    /// All guardians of an app have a seat: they are to vote, if it is still the same app.
    fn note_spare(&mut self, seating: Seating) {
        let app = seating.app;
        let record = self.directory.get(app);
        let record = record.filter(|record| record.wanted.born == seating.born);
        let Some(first) = record.and_then(|record| self.first_of(record)) else {
            return;
        };
        let spare = Spare {
            born: seating.born,
            generation: first.generation,
            seats: seating.seats,
        };
        self.once.spare.insert(app, spare);
        self.reseat(app);
    }

    /// The caller does not want its app any more, and it was not made yet; says whether it was so.
    pub(super) fn abandon_seating(&mut self, origin: Origin) -> bool {
        let before = self.once.seatings.len();
        let is_its = |seating: &Seating| {
            let makes = seating.makes.as_ref();
            makes.is_some_and(|(other, _)| *other == origin)
        };
        self.once.seatings.retain(|_, seating| !is_its(seating));
        self.once.seatings.len() != before
    }

    /// Whether any tenancy is being changed from here.
    pub(super) fn is_seating(&self) -> bool {
        !self.once.seatings.is_empty() || !self.once.proposals.is_empty()
    }

    /// Where the newest generation of the app's seats began, as far as is known here.
    fn first_of(&self, record: &AppRecord) -> Option<Tenancy> {
        let written = record.wanted.tenancy.as_ref()?;
        let voted = self.once.seats.first(record.app, record.wanted.born);
        let known = [Some(written), voted].into_iter().flatten();
        known.max_by_key(|first| first.generation).cloned()
    }

    /// The place for a slot has been promised: now the guardians are asked.
    pub(super) fn propose_home(
        &mut self,
        placing: u64,
        (app, index): (AppId, u32),
        object: ObjectId,
        node: NodeId,
    ) {
        let change = Change::Place {
            index,
            object,
            node,
        };
        self.propose(app, change, Purpose::Home { placing, node });
    }

    fn propose(&mut self, app: AppId, change: Change, purpose: Purpose) {
        let Some(record) = self.directory.get(app) else {
            return;
        };
        let Some(first) = self.first_of(record) else {
            return;
        };
        let born = record.wanted.born;
        let last = self.once.rounds.entry(app).or_insert(0);
        *last += 1;
        let ballot = Ballot {
            round: *last,
            node: self.me.short_id(),
        };
        let proposal = Proposal {
            app,
            born,
            proposer: Proposer::new(ballot, first, change),
            purpose,
        };
        let number = self.next_task();
        self.once.proposals.insert(number, proposal);
        self.ask_seats(number);
    }

    /// Asks what the proposal wants to know.
    fn ask_seats(&mut self, number: u64) {
        loop {
            let proposal = self.once.proposals.get_mut(&number);
            let Some((round, seat, ask)) = proposal.and_then(|it| it.proposer.poll_ask()) else {
                return;
            };
            let task = Task::Seat {
                proposal: number,
                round,
                seat,
            };
            if self.is_reachable(seat.node) {
                let (seat_number, ask) = (seat.number, Box::new(ask));
                let ask = Ask::Seat {
                    seat: seat_number,
                    ask,
                };
                self.ask(seat.node, ask, task);
            } else {
                self.seat_answered(number, round, seat, None);
            }
        }
    }

    pub(super) fn seat_answered(
        &mut self,
        number: u64,
        round: u32,
        seat: Seat,
        answer: Option<SeatAnswer>,
    ) {
        let Some(proposal) = self.once.proposals.get_mut(&number) else {
            return;
        };
        let Some(outcome) = proposal.proposer.handle(round, seat, answer) else {
            return self.ask_seats(number);
        };
        let Some(proposal) = self.once.proposals.remove(&number) else {
            return;
        };
        let app = proposal.app;
        let last = self.once.rounds.entry(app).or_insert(0);
        *last = proposal.proposer.ballot().round.max(*last);
        if let Outcome::Outvoted(by) = outcome {
            *last = by.round.max(*last);
        }
        if !proposal.proposer.unknown().is_empty() {
            self.once.vacant.insert(app);
        }
        self.note_first(app, proposal.born, proposal.proposer.first());
        match (proposal.purpose, outcome) {
            (Purpose::Home { placing, node }, outcome) => self.home_decided(placing, node, outcome),
            (Purpose::Reseat, Outcome::Chosen(title)) => {
                self.note_first(app, proposal.born, &title.tenancy);
                self.once.spare.remove(&app);
                self.once.vacant.remove(&app);
            }
            (Purpose::Reseat, _) => {
                // It has seen all generations up to this one.
                if let Some(spare) = self.once.spare.get_mut(&app) {
                    spare.generation = proposal.proposer.first().generation;
                }
            }
        }
    }

    /// Another generation of seats votes: everybody who keeps the record is to know.
    fn note_first(&mut self, app: AppId, born: Version, first: &Tenancy) {
        let record = self.directory.get(app);
        let known = record.filter(|it| it.wanted.born == born);
        let known = known.and_then(|it| it.wanted.tenancy.as_ref());
        if known.is_some_and(|known| known.generation < first.generation) {
            self.wish(app, |wanted, _| wanted.tenancy = Some(first.clone()));
        }
    }

    /// Whether this node votes on the app: then it has to know whether it was removed.
    pub(super) fn votes_on(&self, app: AppId) -> bool {
        let record = self.directory.get(app);
        let tenancy = record.and_then(|it| it.wanted.tenancy.as_ref());
        tenancy.is_some_and(|it| it.seats.iter().any(|seat| seat.node == self.me))
    }

    /// Who votes on an app, from its record, for an object whose seats are no more.
    pub(super) fn reseated(&mut self, object: ObjectId, wanted: &Wanted) {
        let hosted = self.objects.get(object);
        if hosted.is_some_and(|it| it.wanted.born == wanted.born)
            && let Some(tenancy) = &wanted.tenancy
        {
            self.once.tenures.move_to(self.now, object, tenancy);
        }
    }

    /// The guardians have decided on the home of a slot.
    fn home_decided(&mut self, number: u64, node: NodeId, outcome: Outcome) {
        let pause = Duration::from_millis(self.rng.random_range(50..OUTVOTED_PAUSE_MS));
        let (wait, why) = match outcome {
            Outcome::Chosen(title) => return self.launch_home(number, node, title),
            Outcome::Outvoted(_) => (pause, None),
            Outcome::Held { by_ms } => {
                let seconds = by_ms.div_ceil(1000);
                let why = format!("its last object may still run, for up to {seconds} s");
                let wait = Duration::from_millis(by_ms.into()) + Duration::from_millis(20);
                (wait, Some(Trouble::Held(why)))
            }
            Outcome::TooFew { present, seats } => {
                let needed = majority(seats);
                let why = format!(
                    "{present} of its {seats} guardians answer, and {needed} must agree before it \
                     runs anywhere"
                );
                (Duration::from_secs(1), Some(Trouble::TooFew(why)))
            }
        };
        self.not_chosen(number, wait, why);
    }

    fn launch_home(&mut self, number: u64, node: NodeId, title: Title) {
        let Some((lease, mut object)) = self.chosen_place(number, node) else {
            return;
        };
        let home = title.tenancy.homes.get(&object.index);
        object.epoch = home.map_or(0, |home| home.epoch);
        self.note_reason(
            number,
            format!("most of its guardians agreed: epoch {}", object.epoch),
        );
        object.title = Some(title);
        let object: Box<Placement> = Box::new(object);
        self.ask(node, Ask::Launch { lease, object }, Task::Launch(number));
    }

    /// Has other seats vote where the guardians have changed, or have lost their seats.
    pub(super) fn renew_seats(&mut self) {
        let mut due = Vec::new();
        let mut doubted = Vec::new();
        let mut known = Vec::new();
        for record in self.directory.iter() {
            let app = record.app;
            let Some(first) = self.first_of(record) else {
                continue;
            };
            let guardians = directory::guardians(app, self.lasting());
            if !guardians.contains(&self.me) && self.votes_on(app) {
                // Perhaps others vote by now: nobody tells a node that is no guardian.
                doubted.push(app);
            }
            let under_way = self.once.proposals.values().any(|it| it.app == app)
                || self.once.seatings.values().any(|it| it.app == app);
            if under_way || self.supervisor_of(app) != self.me {
                continue;
            }
            let born = record.wanted.born;
            // Whoever had others vote may have died of it before it was written down.
            known.push((app, born, first.clone()));
            let wanted: BTreeSet<NodeId> = guardians.iter().copied().collect();
            let seated: BTreeSet<NodeId> = first.seats.iter().map(|seat| seat.node).collect();
            let is_right = wanted == seated && !self.once.vacant.contains(&app);
            if !is_right && guardians.iter().all(|node| self.is_reachable(*node)) {
                due.push((app, born, first.generation, wanted));
            }
        }
        for (app, born, first) in known {
            self.note_first(app, born, &first);
        }
        for app in doubted {
            self.fetch_from_host(app, self.supervisor_of(app));
        }
        for (app, born, generation, wanted) in due {
            let spare = self.once.spare.get(&app);
            let fits = spare.filter(|it| (it.born, it.generation) == (born, generation));
            let nodes = fits.map(|it| it.seats.iter().map(|seat| seat.node).collect());
            if nodes == Some(wanted) {
                self.reseat(app);
            } else {
                self.begin_seating(app, born, None);
            }
        }
        self.leave_seats();
    }

    fn reseat(&mut self, app: AppId) {
        if let Some(spare) = self.once.spare.get(&app) {
            let change = Change::Seat(spare.seats.clone());
            self.propose(app, change, Purpose::Reseat);
        }
    }

    /// Gives up seats of apps whose name has another by now, and forgets what is known of those that
    /// were removed. Their seats go with the last that is remembered of them: until then, somebody who
    /// has not heard of the removal may wish something newer.
    fn leave_seats(&mut self) {
        let now = self.now;
        let former = |app, born| {
            let record = self.directory.get(app);
            record.is_some_and(|record| record.wanted.born > born)
        };
        let is_free = |app, born| {
            let its = |of, then| (of, then) == (app, born);
            self.once.seats.tenure_left(now, its).is_none()
        };
        let over = self.once.seats.apps();
        let over = over.filter(|(app, born)| former(*app, *born) && is_free(*app, *born));
        let over: BTreeSet<_> = over.collect();
        self.leave_seats_of(|app, born| over.contains(&(app, born)));
        let is_wanted = |app: &AppId| {
            let record = self.directory.get(*app);
            record.is_some_and(|it| it.wanted.spec.is_some())
        };
        self.once.rounds.retain(|app, _| is_wanted(app));
        self.once.vacant.retain(is_wanted);
        self.once.spare.retain(|app, _| is_wanted(app));
    }

    pub(super) fn leave_seats_of(&mut self, is_over: impl Fn(AppId, Version) -> bool) {
        for number in self.once.seats.leave(is_over) {
            self.write(Table::Seats, &number.to_be_bytes(), None);
        }
    }

    /// Whether the app of that birth was removed.
    fn is_over(&self, app: AppId, born: Version) -> bool {
        self.directory.get(app).is_some_and(|record| {
            let wanted = &record.wanted;
            wanted.born > born || (wanted.born == born && wanted.spec.is_none())
        })
    }

    /// Starts an object's program, once it may run.
    pub(super) fn start_program(&mut self, object: ObjectId) {
        let hidden = self.config.hidden_directories.clone();
        let Some(mut launch) = self.objects.launch_order(object, &hidden) else {
            return;
        };
        let hosted = self.objects.get(object);
        if let Some(title) = hosted.and_then(|it| it.title.clone()) {
            self.seek_tenure(object, title);
            let Some(deadlines) = self.once.tenures.held(self.now, object) else {
                self.once.awaiting.insert(object);
                return;
            };
            launch.tenure = Some(tenure(deadlines));
        }
        self.outbox.act(Output::Launch(Box::new(launch)));
    }

    /// Asks for the right of an object to run, from now on, unless it is asked for already.
    pub(super) fn seek_tenure(&mut self, object: ObjectId, title: Title) {
        if !self.once.tenures.seeks(object) {
            let number = self.rng.random();
            self.once
                .tenures
                .hold(self.now, Claim { object, number }, title);
        }
    }

    /// Whether the object's program was not started yet, because it may not run; then it is not.
    pub(super) fn is_awaiting(&mut self, object: ObjectId) -> bool {
        self.once.awaiting.remove(&object)
    }

    /// An object that waits for its tenure is to end: it has, then.
    pub(super) fn end_awaiting(&mut self, object: ObjectId) {
        let exit = Exit {
            reason: ExitReason::Lapsed,
            at: self.wall(),
            asked: true,
        };
        self.handle_driver(object, DriverReport::Exited(exit));
    }

    /// The object does not run any more.
    pub(super) fn release_tenure(&mut self, object: ObjectId) {
        self.once.awaiting.remove(&object);
        self.once.tenures.release(object);
    }

    /// Asks for renewals; says what came of them. Whether there was anything to do.
    pub(super) fn heed_tenures(&mut self) -> bool {
        if let Some((claim, seat, ask)) = self.once.tenures.poll_ask() {
            let asked_at = self.now;
            let task = Task::Renew {
                claim,
                seat,
                asked_at,
            };
            let (seat_number, ask) = (seat.number, Box::new(ask));
            let ask = Ask::Seat {
                seat: seat_number,
                ask,
            };
            self.ask(seat.node, ask, task);
            return true;
        }
        let Some(event) = self.once.tenures.poll_event() else {
            return false;
        };
        match event {
            Event::Extended {
                object,
                freeze_at,
                kill_at,
            } => {
                if self.once.awaiting.remove(&object) {
                    self.start_program(object);
                } else {
                    let tenure = tenure((freeze_at, kill_at));
                    self.outbox.act(Output::Tenure { object, tenure });
                }
            }
            Event::Reseated { object, title } => self.objects.set_title(object, title),
            Event::Unseated(object) => {
                if let Some(app) = self.objects.get(object).map(|it| it.facts.app) {
                    let supervisor = self.supervisor_of(app);
                    self.ask(supervisor, Ask::FetchRecord(app), Task::Reseated(object));
                }
            }
            Event::Lost(object) => {
                if let Some(hosted) = self.objects.get(object) {
                    let facts = &hosted.facts;
                    let slot = format!("{}/{}", facts.app_name, facts.index);
                    let message = format!("{}: another object has its slot", object.short());
                    self.event("object.superseded", slot, message);
                }
                // It is not there any more: then it is gone already.
                let _gone = self.objects.stop(object, Some(0), true);
            }
        }
        true
    }
}

fn tenure((freeze_at, kill_at): (Instant, Instant)) -> Tenure {
    Tenure {
        freeze_at_us: freeze_at.as_micros(),
        kill_at_us: kill_at.as_micros(),
    }
}
