//! Who a program runs as, by the object's own `/etc/passwd` and `/etc/group`.
//!
//! The files are read directly: name services of the host (NSS) load libraries and ask daemons,
//! neither of which belongs into an object.

use std::fs::File;
use std::io::Read;

use nix::unistd::{Gid, Uid, getegid, geteuid, setgroups, setresgid, setresuid};

use crate::limits::ACCOUNTS_BYTES_MAX;

/// A resolved user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) user: u32,
    pub(crate) group: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
    /// Whether ids must change at all.
    pub(crate) is_other: bool,
}

#[derive(Debug)]
struct Entry<'a> {
    name: &'a str,
    user: u32,
    group: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (user, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1)?;
        Some(Entry {
            name,
            user,
            group,
            home,
        })
    })
}

/// Finds an account: `None` is who we are; a name, `uid`, `name:group` or `uid:gid` otherwise.
pub(crate) fn find(wanted: Option<&str>) -> Result<Account, String> {
    let passwd = read("/etc/passwd");
    let Some(wanted) = wanted else {
        let user = geteuid().as_raw();
        let home = entries(&passwd)
            .find(|entry| entry.user == user)
            .map_or("/", |e| e.home);
        let group = getegid().as_raw();
        let home = home.to_string();
        return Ok(Account {
            user,
            group,
            groups: Vec::new(),
            home,
            is_other: false,
        });
    };
    resolve(wanted, &passwd, &read("/etc/group"))
}

fn resolve(wanted: &str, passwd: &str, groups: &str) -> Result<Account, String> {
    let (user, group) = wanted
        .split_once(':')
        .map_or((wanted, None), |(u, g)| (u, Some(g)));
    let number = user.parse::<u32>().ok();
    let entry = entries(passwd).find(|e| e.name == user || Some(e.user) == number);
    let (Some(user), name) = (
        entry.as_ref().map(|e| e.user).or(number),
        entry.as_ref().map(|e| e.name),
    ) else {
        return Err(format!("there is no user `{user}` on this node"));
    };
    let listed = |line: &str| -> Option<(String, u32, bool)> {
        let mut fields = line.split(':');
        let (group, _password) = (fields.next()?.to_string(), fields.next()?);
        let id = fields.next()?.parse().ok()?;
        let has = name.is_some_and(|name| {
            fields
                .next()
                .is_some_and(|m| m.split(',').any(|m| m == name))
        });
        Some((group, id, has))
    };
    let all: Vec<_> = groups.lines().filter_map(listed).collect();
    let group = match group {
        None => entry.as_ref().map_or(user, |entry| entry.group),
        Some(wanted) => all
            .iter()
            .find(|(name, id, _)| name == wanted || Some(*id) == wanted.parse().ok())
            .map(|(_, id, _)| *id)
            .or_else(|| wanted.parse().ok())
            .ok_or_else(|| format!("there is no group `{wanted}` on this node"))?,
    };
    let mut groups: Vec<u32> = all
        .iter()
        .filter(|(_, _, has)| *has)
        .map(|(_, id, _)| *id)
        .collect();
    if !groups.contains(&group) {
        groups.insert(0, group);
    }
    let home = entry.as_ref().map_or("/", |entry| entry.home).to_string();
    Ok(Account {
        user,
        group,
        groups,
        home,
        is_other: true,
    })
}

impl Account {
    /// Becomes this user for good.
    pub(crate) fn assume(&self) -> nix::Result<()> {
        let is_same = self.user == geteuid().as_raw() && self.group == getegid().as_raw();
        if !self.is_other || (is_same && !geteuid().is_root()) {
            return Ok(());
        }
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (user, group) = (Uid::from_raw(self.user), Gid::from_raw(self.group));
        setgroups(&groups)?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)
    }
}

fn read(path: &str) -> String {
    let mut bytes = Vec::new();
    let file = File::open(path);
    // Without the file there are no names, and numbers still work.
    let _read = file.and_then(|file| file.take(ACCOUNTS_BYTES_MAX).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:www:/srv/web:/bin/false\nbad\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\ndisk:x:6:web,other\naudio:x:29:other\n";

    fn check(wanted: &str, expect: Option<(u32, u32, &[u32], &str)>) {
        let found = resolve(wanted, PASSWD, GROUP).ok();
        let found = found
            .as_ref()
            .map(|a| (a.user, a.group, a.groups.as_slice(), a.home.as_str()));
        assert_eq!(found, expect, "{wanted}");
    }

    #[test]
    fn users_are_names_or_numbers_with_or_without_a_group() {
        check("web", Some((33, 34, &[34, 6], "/srv/web")));
        check("33", Some((33, 34, &[34, 6], "/srv/web")));
        check("web:disk", Some((33, 6, &[6], "/srv/web")));
        check("web:0", Some((33, 0, &[0, 6], "/srv/web")));
        check("4711", Some((4711, 4711, &[4711], "/")));
        check("4711:12", Some((4711, 12, &[12], "/")));
        check("nobody-here", None);
        check("web:no-such-group", None);
    }
}
