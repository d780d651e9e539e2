//! Users and groups as a container's own `/etc/passwd` and `/etc/group` define them (passwd(5),
//! group(5)), read by Garden's rules: the first match wins, a number is an id even without an
//! entry, and where there is no passwd file only `root` exists.

/// A user as it will run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// User id inside the container.
    pub uid: u32,
    /// Group id inside the container.
    pub gid: u32,
    /// Home directory; `/` where the files say nothing.
    pub home: &'a [u8],
    /// Name to look for in group lists; empty where the files say nothing.
    pub name: &'a [u8],
    /// Whether the group was asked for, so that there are no supplementary ones.
    pub group_given: bool,
}

/// What could not be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No such user.
    User,
    /// No such group.
    Group,
}

/// A decimal id of at most 32 bits; ids that the kernel reserves (the highest) are none.
pub fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    let mut value = 0_u32;
    for byte in text {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value = value.checked_mul(10)?.checked_add(u32::from(digit))?;
    }
    (value != u32::MAX).then_some(value)
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && line[0] != b'#')
}

fn field(line: &[u8], index: usize) -> &[u8] {
    line.split(|byte| *byte == b':').nth(index).unwrap_or(&[])
}

/// Finds who `wanted` (`user`, `uid`, `user:group`, `uid:gid`; empty is root) is.
pub fn find<'a>(
    wanted: &[u8],
    passwd: Option<&'a [u8]>,
    group: Option<&'a [u8]>,
) -> Result<User<'a>, Unknown> {
    let mut parts = wanted.splitn(2, |byte| *byte == b':');
    let user = parts.next().filter(|user| !user.is_empty()).unwrap_or(b"0");
    let wanted_group = parts.next().filter(|group| !group.is_empty());
    let as_number = number(user);
    let entry = lines(passwd.unwrap_or(&[])).find(|line| match as_number {
        Some(uid) => number(field(line, 2)) == Some(uid),
        None => field(line, 0) == user,
    });
    let mut found = match (entry, as_number) {
        (Some(line), _) => User {
            uid: number(field(line, 2)).ok_or(Unknown::User)?,
            gid: number(field(line, 3)).unwrap_or(0),
            home: Some(field(line, 5)).filter(|home| !home.is_empty()).unwrap_or(b"/"),
            name: field(line, 0),
            group_given: false,
        },
        (None, Some(uid)) => User { uid, gid: 0, home: b"/", name: b"", group_given: false },
        (None, None) if passwd.is_none() && user == b"root" => {
            User { uid: 0, gid: 0, home: b"/", name: b"", group_given: false }
        }
        (None, None) => return Err(Unknown::User),
    };
    if let Some(wanted) = wanted_group {
        let by_name = lines(group.unwrap_or(&[])).find(|line| field(line, 0) == wanted);
        found.gid = by_name
            .and_then(|line| number(field(line, 2)))
            .or(number(wanted))
            .ok_or(Unknown::Group)?;
        found.group_given = true;
    }
    Ok(found)
}

/// Fills `into` with the groups that list the user; how many there are. More than fit are left out.
pub fn supplementary(user: &User<'_>, group: Option<&[u8]>, into: &mut [u32]) -> usize {
    if user.group_given || user.name.is_empty() {
        return 0;
    }
    let mut count = 0;
    for line in lines(group.unwrap_or(&[])) {
        let listed = field(line, 3).split(|byte| *byte == b',').any(|member| member == user.name);
        let (true, Some(gid), Some(place)) = (listed, number(field(line, 2)), into.get_mut(count))
        else {
            continue;
        };
        *place = gid;
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\n\
        alice:x:5:5::/:\nbroken:x:abc:1::/:\nvcap:x:2000:2000::/home/vcap:/bin/bash\n";
    const GROUP: &[u8] = b"root:x:0:\nalice:x:1001:\naudio:x:29:alice,vcap\nvideo:x:44:vcap\n";

    fn who(wanted: &str) -> Result<User<'static>, Unknown> {
        find(wanted.as_bytes(), Some(PASSWD), Some(GROUP))
    }

    #[test]
    fn first_match_wins_and_numbers_need_no_entry() {
        let alice = who("alice").unwrap();
        assert_eq!((alice.uid, alice.gid, alice.home), (1000, 1001, b"/home/alice".as_slice()));
        assert_eq!(who("1000").unwrap().name, b"alice");
        assert_eq!(
            who("77").unwrap(),
            User { uid: 77, gid: 0, home: b"/", name: b"", group_given: false }
        );
        assert_eq!(who("").unwrap().home, b"/root");
    }

    #[test]
    fn groups_are_found_by_name_or_number() {
        assert_eq!(who("alice:video").unwrap().gid, 44);
        assert_eq!(who("77:88").unwrap().gid, 88);
        assert_eq!(who("alice:nobody"), Err(Unknown::Group));
    }

    #[test]
    fn unknown_and_broken_users_are_refused() {
        for wanted in ["bob", "broken", "-1", "4294967295", "99999999999"] {
            assert_eq!(who(wanted), Err(Unknown::User), "{wanted}");
        }
    }

    #[test]
    fn without_files_only_root_has_a_name() {
        assert_eq!(find(b"root", None, None).unwrap().uid, 0);
        assert_eq!(find(b"alice", None, None), Err(Unknown::User));
    }

    #[test]
    fn supplementary_groups_list_the_user_unless_a_group_is_given() {
        let mut groups = [0; 8];
        assert_eq!(supplementary(&who("vcap").unwrap(), Some(GROUP), &mut groups), 2);
        assert_eq!(groups[..2], [29, 44]);
        assert_eq!(supplementary(&who("vcap:audio").unwrap(), Some(GROUP), &mut groups), 0);
        assert_eq!(supplementary(&who("vcap").unwrap(), Some(GROUP), &mut groups[..1]), 1);
    }
}
