//! Examples for help and manual pages, and the sections that all pages have.
//!
//! A text of examples is what `--help` shows below the flags: lines of a command and, after two
//! blanks and a `#`, what it does. The manual pages are made from the same texts.

/// Every pair of a command and what it does.
pub(crate) fn examples(help: &str) -> Vec<(String, String)> {
    let lines = help.lines().map(str::trim);
    let commands = lines.filter(|line| line.contains("welkin") && !line.ends_with(':'));
    commands
        .map(|line| {
            let (command, about) = line.split_once("  #").unwrap_or((line, ""));
            (command.trim().to_owned(), about.trim().to_owned())
        })
        .collect()
}

/// EXIT STATUS of the page of a verb.
pub(crate) fn exit_status(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "welkin-run" | "welkin-exec" | "welkin-attach" => &[
            (
                "0 to 255",
                "The exit code of the program; 128 + n when signal n ended it.",
            ),
            ("2", "The command line is wrong."),
            ("125", "Welkin failed, not the program."),
            ("126", "The program could not be executed."),
            ("127", "The program was not found."),
        ],
        "welkin-apply" | "welkin-update" => &[
            (
                "0",
                "It is as it should be; with --dry-run, nothing would be changed.",
            ),
            (
                "1",
                "It is not, or not yet; standard error says why. With --dry-run, something would \
                 be changed.",
            ),
            (
                "2",
                "The command line or a file is wrong, and nothing was changed. With --dry-run, \
                 anything that went wrong.",
            ),
        ],
        "welkin-doctor" => &[
            ("0", "Nothing is wrong; there may be advice."),
            ("1", "Something does not work, or the node is not up."),
            ("2", "The command line is wrong."),
        ],
        _ => &[
            ("0", "It was done."),
            (
                "1",
                "It was not done, or only for some of the targets; standard error says why.",
            ),
            ("2", "The command line is wrong."),
        ],
    }
}

/// FILES of the page of a verb: which of the node's files a program sees.
pub(crate) fn files(verb: &str) -> &'static [(&'static str, &'static str)] {
    match verb {
        "welkin-run" | "welkin-exec" => &[
            (
                "/",
                "That of the node, in a layer of the object's own: what the program changes stays \
                 with the object. All below is not the node's.",
            ),
            (
                "/root",
                "A home of the object's own, kept as long as the object. Toolchains in the node's, \
                 such as /root/.cargo, are not there: install them below /opt, /srv or /usr/local.",
            ),
            (
                "/home, the home of the node's user, the node's state directory",
                "Empty.",
            ),
            (
                "/etc/kubernetes, /etc/ssl/private, /etc/wireguard, /var/lib/containerd, \
                 /var/lib/docker, /var/lib/kubelet, /var/lib/private",
                "Empty.",
            ),
            (
                "/etc/shadow*, /etc/gshadow*, /etc/ssh/ssh_host_*",
                "Empty files.",
            ),
            ("/tmp, /run", "Empty and writable."),
        ],
        _ => &[],
    }
}

/// BUGS of the page of a verb.
pub(crate) fn bugs(verb: &str) -> &'static str {
    match verb {
        "welkin-logs" => {
            "The lines of several objects are ordered by the clocks of their nodes. --tail counts \
             the lines of each object."
        }
        "welkin-events" => {
            "Each node remembers its own events, and only some: what a lost node saw is lost."
        }
        "welkin-cp" => {
            "A copy between two objects goes through this machine: cp to -, then from -."
        }
        "welkin-ps" | "welkin-stats" | "welkin-top" => {
            "What nodes host that do not answer in time is missing; their names are said."
        }
        "welkin-support-bundle" => {
            "An argument or a value that the node quotes in its log after its app was removed, or \
             that is shorter than 8 bytes, is not found there. Nodes that do not answer are missing."
        }
        "welkin-attach" => "What the program wrote before is in its log and is not shown again.",
        _ => "None known. welkin doctor tells what this machine lacks.",
    }
}

/// Examples of the program as a whole.
pub(crate) const WELKIN: &str = "\
Examples:
  welkin up                          # make this machine a cloud of its own
  welkin invite                      # a ticket for another machine
  welkin join TICKET                 # on the other machine
  welkin run -d --name web -- /usr/bin/server  # somewhere in the cloud
  welkin ps                          # what runs, and where";

macro_rules! examples {
    ($($name:ident: $($line:literal)*;)*) => {
        $(
            #[doc = concat!("Examples of the verb.")]
            pub(crate) const $name: &str = concat!("Examples:", $("\n  ", $line),*);
        )*
    };
}

examples! {
    UP: "welkin up  # found a cloud, or go on with the one that was"
        "welkin up --name atlas --label disk=ssd"
        "welkin up --foreground  # for a service manager";
    JOIN: "welkin join TICKET  # the line that welkin invite printed"
        "ssh atlas welkin invite | welkin join -  # the ticket from standard input";
    INVITE: "welkin invite  # for one machine, for a day"
        "welkin invite --uses 20 --ttl 1h --label zone=b";
    DOWN: "welkin down  # stop this node; welkin up brings it back";
    NODES: "welkin nodes"
        "welkin nodes -o wide"
        "welkin nodes -w  # again and again; q quits"
        "welkin nodes --format '{{.name}} {{.capacity.memory_bytes}}'";
    NODE: "welkin node ls"
        "welkin node drain atlas  # before its machine is switched off";
    NODE_INSPECT: "welkin node inspect  # this node"
        "welkin node inspect atlas -o json";
    NODE_DRAIN: "welkin node drain atlas  # returns once it is empty"
        "welkin node drain --force atlas  # also end what would stay";
    NODE_RESUME: "welkin node resume atlas";
    NODE_LABEL: "welkin node label atlas disk=ssd arch-  # set one, remove one";
    NODE_RM: "welkin node rm atlas  # it can never come back without a new ticket";
    RUN: "welkin run -- uname -a  # somewhere, and wait for it"
        "welkin run -it -- bash"
        "welkin run -d --name web --replicas 3 --port http=8080 --restart always -- /usr/bin/server"
        "welkin run -d --name db --restart always --on-partition once -- redis-server  # never twice
  welkin run -d --name api -p http=8080 --restart always --health http:8080/up -- serve  # restarted when it does not answer"
        "welkin run -d --name api --after db,cache --restart always -- serve  # once both have come up"
        "welkin run --name backup --cron '30 3 * * *' -- ./backup  # every night, UTC"
        "welkin run --rm --at +2h -- ./report  # once"
        "welkin run --memory 2G --constraint 'arch=x86_64, label.disk=ssd' -- ./job";
    PS: "welkin ps"
        "welkin ps -a -o wide  # also what has ended"
        "welkin ps -w  # again and again; q quits"
        "welkin ps --format '{{.app_name}} {{.phase}}'";
    LOGS: "welkin logs web"
        "welkin logs -f --tail 20 web/0"
        "welkin logs -t --since 10m web";
    EXEC: "welkin exec web/0 -- ls -l /"
        "welkin exec -it web -- sh";
    ATTACH: "welkin attach web/0  # Ctrl-C leaves, or Ctrl-P Ctrl-Q in a terminal"
        "welkin attach --signals web/0  # Ctrl-C goes to the program";
    CP: "welkin cp web:/etc/hosts .  # from an object"
        "welkin cp site web/0:/srv/  # to an object"
        "welkin cp web:/var/log - | tar tv  # as a tar archive";
    STOP: "welkin stop web"
        "welkin stop -t 60 web/0 db";
    START: "welkin start web"
        "welkin start backup  # now, besides its schedule";
    KILL: "welkin kill web  # at once"
        "welkin kill -s HUP web/0";
    RM: "welkin rm web"
        "welkin rm -f $(welkin ps -a -q)  # everything"
        "welkin rm -f web db  # also when they run";
    WAIT: "welkin wait job  # prints its exit code";
    SCALE: "welkin scale web=5 db=2"
        "welkin scale web=0";
    APPLY: "welkin apply web.toml db.toml"
        "welkin apply --dry-run web.toml  # what would be changed"
        "welkin inspect --spec web | welkin apply -  # changes nothing";
    UPDATE: "welkin update web --memory 256M"
        "welkin update web --env MODE=test -- /usr/bin/server -v"
        "welkin update --rollback web  # back to what it was before";
    INSPECT: "welkin inspect web"
        "welkin inspect --spec web > web.toml  # a file for welkin apply"
        "welkin inspect web/0 -o json"
        "welkin inspect web --format '{{json .spec.program.arguments}}'";
    EXPLAIN: "welkin explain web  # why it is where it is";
    STATS: "welkin stats  # q quits"
        "welkin stats --no-stream web";
    TOP: "welkin top  # q quits";
    EVENTS: "welkin events"
        "welkin events -f --since 1h";
    NAME: "welkin name resolve web";
    NAME_RESOLVE: "welkin name resolve web"
        "welkin name resolve web --format '{{.address}}:{{.ports.http}}'";
    DOCTOR: "welkin doctor";
    SUPPORT_BUNDLE: "welkin support-bundle  # then look through it, and send it yourself"
        "welkin support-bundle --since 2h --file /tmp/bundle.tar.gz"
        "welkin support-bundle --no-logs -o json";
    VERSION: "welkin version";
    COMPLETION: "welkin completion bash > /etc/bash_completion.d/welkin"
        "source <(welkin completion zsh)"
        "welkin completion fish > ~/.config/fish/completions/welkin.fish";
    MAN: "welkin man run | man -l -"
        "welkin man --dir /usr/local/share/man/man1";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_read_back() {
        let pairs = examples(INVITE);
        assert_eq!(pairs.len(), 2);
        assert_eq!(pairs[0].0, "welkin invite");
        assert_eq!(pairs[0].1, "for one machine, for a day");
        assert_eq!(pairs[1].1, "");
    }

    /// Whoever adds to the places that objects do not see adds to the manual too.
    #[test]
    fn every_hidden_place_is_in_the_manual() {
        let source = include_str!("../../drivers/src/sandbox/hidden.rs");
        let lists = source.split("const ").filter(|it| {
            let name = it.split(':').next();
            name.is_some_and(|name| ["HOME", "DIRECTORIES", "FILES"].contains(&name))
        });
        let lists: Vec<_> = lists.map(|it| it.split(';').collect::<Vec<_>>()).collect();
        let text: Vec<_> = lists.iter().flat_map(|it| it.iter().take(2)).collect();
        let quoted = text.iter().flat_map(|it| it.split('"').skip(1).step_by(2));
        let quoted: Vec<_> = quoted.collect();
        assert!(quoted.len() > 10, "{quoted:?}");
        let places: Vec<_> = files("welkin-run")
            .iter()
            .map(|(place, _)| *place)
            .collect();
        for place in quoted {
            assert!(places.iter().any(|it| it.contains(place)), "{place}");
        }
    }
}
