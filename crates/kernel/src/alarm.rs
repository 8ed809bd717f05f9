//! The alarms: everything that should be impossible, and involves a peer or a disk.
//!
//! One table names all of them, those of the kernel and those of a world, and says of each what it
//! means and what to do next. `welkin doctor` shows that beside what was seen; so no alarm can be
//! raised that nobody explains.
//!
//! What it is not: it raises none. Whoever does says what was seen.

/// Makes the enum, the list of it, and what is said of each. All of it must be said of each.
macro_rules! alarms {
    ($( $alarm:ident $name:literal means $meaning:literal do $remedy:literal; )*) => {
        /// An alarm.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Alarm { $( #[doc = $meaning] $alarm, )* }

        impl Alarm {
            /// Every alarm that there is.
            pub const ALL: &'static [Self] = &[ $( Self::$alarm, )* ];

            /// Its stable name, for metrics, logs and documents.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $( Self::$alarm => $name, )* }
            }

            /// What has happened when it is raised, as a clause.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $( Self::$alarm => $meaning, )* }
            }

            /// What a person does about it.
            #[must_use]
            pub fn remedy(self) -> &'static str {
                match self { $( Self::$alarm => $remedy, )* }
            }
        }
    };
}

// This node's own disk.
alarms! {
    DiskRefused "disk.refused"
        means "the disk did not take a write"
        do "make room, or look into `dmesg` and replace the disk; the node tries again every \
            second, and tells nobody of anything that is not durable";
    DiskDamaged "disk.damaged"
        means "rows of the disk cannot be read; they were left out and not overwritten"
        do "look into `dmesg`: the disk may fail again; what other members keep comes back by \
            itself";
    DiskSetAside "disk-damaged"
        means "the whole disk could not be read; it was set aside, and the node began anew"
        do "look into `dmesg`: the disk may fail again; what other members keep comes back by \
            itself; compare `welkin ps -a` with what should run";
    DiskLost "disk-lost"
        means "the disk of a node that ran here before is empty or gone; the node began anew"
        do "if it was removed or its file system is not mounted: welkin down, bring it back, \
            welkin up; else compare `welkin ps -a` with what should run";
    DiskEncode "disk.encode"
        means "the node could not put into bytes what it wanted to store; it was not stored"
        do "report it as a bug, with `welkin support-bundle`";

    NodeRemoved "node.removed"
        means "somebody removed this node from the cloud; its objects are being stopped"
        do "if nobody should have: ask who holds the cloud for a new ticket; then welkin down, \
            move the state directory away, welkin join TICKET";

    NodeTwice "node.twice"
        means "two machines run with copies of one state directory, and so as one node; the second \
               one is refused"
        do "decide which of the two addresses is to be the node; on the other machine: welkin down, \
            move its state directory away, welkin join TICKET";
    NodeHidden "node.hidden"
        means "this node is behind a router, and no member relays for it: members that it has no \
               link with cannot reach it"
        do "add a member that others can dial and that carries (none may run with --no-relay), or \
            let the router pass UDP port 7117 on to this machine; `welkin nodes -o wide` shows who \
            runs an older Welkin, which does not relay";
    BootBehind "membership-boot-behind"
        means "others know a later start of this node than it knows itself: its state directory \
               is an old copy, or two nodes run with copies of one"
        do "after a backup was put back, nothing, if it does not come again; else find the second \
            machine with a copy of this state directory and end its node: each needs a ticket of \
            its own";
    BootAbsurd "membership-boot-absurd"
        means "a member claims a start of this node that it cannot have reached in any life; the \
               claim was not believed"
        do "the member that claims it is damaged or lies: compare the versions of `welkin nodes \
            -o wide`; if it comes again, remove that member and report it as a bug";
    MembershipMalformed "membership-malformed"
        means "a datagram of a member cannot be read; it was dropped"
        do "compare the versions of `welkin nodes -o wide`, and bring all nodes to the same; if \
            they are, report it as a bug, with `welkin support-bundle`";
    MembershipCore "membership-core"
        means "what finds out who answers refused a step of this node; it goes on"
        do "if `welkin nodes` differs between nodes: welkin down && welkin up here (objects go \
            on); report it as a bug, with `welkin support-bundle`";

    PeerMessage "peer.message"
        means "a message of a member cannot be read; it was dropped"
        do "compare the versions of `welkin nodes -o wide`, and bring all nodes to the same; if \
            they are, report it as a bug, with `welkin support-bundle`";
    StatementRefused "statement.refused"
        means "a member said who belongs to the cloud, and that is not so, or there is no room for \
               it; it was not taken in"
        do "if the cloud is full, remove nodes that are no more with `welkin node rm`; else look \
            at `welkin doctor` on each node for a damaged disk, and at who may make tickets: a \
            signature that does not fit is damaged or forged";
    ReportForged "report.forged"
        means "a member reported on an object of another node; it was not believed"
        do "that member is damaged or lies: run `welkin doctor` there, and remove it with `welkin \
            node rm` if it comes again";
    RecordUnfit "record.unfit"
        means "an app was to be kept that no node could have accepted; it was not taken"
        do "compare the versions of `welkin nodes -o wide`: a newer node may accept more; bring \
            all to the same; if they are, report it as a bug, with `welkin support-bundle`";
    RecordFuture "record.future"
        means "an app was written by a clock that is more than a year ahead; it was not taken"
        do "set the clock of this machine and of those that `welkin nodes` names, for example \
            with an NTP service; what was written then is written anew by itself";

    MessageTooLong "message.too-long"
        means "the node wanted to say more at once than a message holds; it was not sent"
        do "make the largest apps smaller, first those with long arguments or environments; \
            report it as a bug, with `welkin support-bundle`";
    MessageEncode "message.encode"
        means "the node could not put into bytes what it wanted to say; it was not sent"
        do "report it as a bug, with `welkin support-bundle`";
    SignEncode "sign.encode"
        means "the node could not put into bytes what it wanted to sign; the call for it fails"
        do "report it as a bug, with `welkin support-bundle`";
    KernelEndless "kernel.endless"
        means "the node found ever more to do about one thing; it broke off and goes on with the \
               next"
        do "if something does not happen: welkin down && welkin up here (objects go on); report \
            it as a bug, with `welkin support-bundle`";
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_alarm_has_a_name_of_its_own_a_meaning_and_a_next_step() {
        let names: BTreeSet<_> = Alarm::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Alarm::ALL.len());
        for alarm in Alarm::ALL {
            let is_word = |c: char| c.is_ascii_lowercase() || ".-".contains(c);
            assert!(alarm.name().chars().all(is_word), "{alarm:?}");
            for text in [alarm.meaning(), alarm.remedy()] {
                assert!(text.len() > 20, "{alarm:?}: {text}");
                assert!(
                    !text.ends_with('.') && !text.contains("  "),
                    "{alarm:?}: {text}"
                );
            }
            assert_ne!(alarm.meaning(), alarm.remedy());
        }
    }
}
