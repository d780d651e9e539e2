//! A process as Garden's client describes it, made into the plan its child follows.

use std::ffi::CString;

use garden_api::{ProcessSpec, ResourceLimits};
use garden_seccomp::Filter;
use garden_sys::plan::Plan;
use garden_sys::program::plan::tag;
use garden_sys::program::wire::Step;
use garden_sys::supervisor::Failure;

use crate::error::Error;
use crate::identity::Bounds;

/// What a container adds to each of its processes.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// The image's and the container's variables, in this order.
    pub environment: Vec<&'a str>,
    /// Bounding sets.
    pub bounds: Bounds,
    /// Unprivileged containers only.
    pub seccomp: Option<&'a Filter>,
    /// Set no_new_privs.
    pub no_new_privileges: bool,
    /// The name of an AppArmor profile; unprivileged containers only.
    pub apparmor: Option<&'a str>,
}

fn c_text(what: &str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Plain(format!("{what} contains a NUL byte: {text:?}")))
}

/// The plan of a process. Refuses texts that no system call could carry.
pub fn plan(spec: &ProcessSpec, around: &Surroundings<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new();
    plan.text(tag::PROGRAM, &c_text("the process's path", &spec.path)?);
    plan.text(tag::ARGUMENT, &c_text("the process's path", &spec.path)?);
    for argument in &spec.args {
        plan.text(tag::ARGUMENT, &c_text("an argument", argument)?);
    }
    let own = spec.env.iter().map(String::as_str);
    for variable in last_of_each(around.environment.iter().copied().chain(own)) {
        plan.text(tag::ENVIRONMENT, &c_text("an environment variable", variable)?);
    }
    // A pea begins at the top of its image, everybody else at home.
    let at_the_top = spec.dir.is_empty() && !spec.image.uri.is_empty();
    let directory = if at_the_top { "/" } else { &spec.dir };
    if !directory.is_empty() {
        plan.text(tag::DIRECTORY, &c_text("the working directory", directory)?);
    }
    if !spec.user.is_empty() {
        plan.text(tag::USER, &c_text("the user", &spec.user)?);
    }
    for (resource, value) in rlimits(&spec.rlimits) {
        plan.rlimit(resource, value);
    }
    plan.capabilities(around.bounds.root, around.bounds.others);
    if around.no_new_privileges {
        plan.mark(tag::NO_NEW_PRIVILEGES);
    }
    if let Some(profile) = around.apparmor {
        plan.text(tag::APPARMOR, &c_text("the AppArmor profile", profile)?);
    }
    if let Some(filter) = around.seccomp {
        plan.seccomp(&filter.bytes());
    }
    Ok(plan)
}

/// Of variables with one name the last, in the order of these last ones.
fn last_of_each<'a>(variables: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let name = |variable: &'a str| variable.split_once('=').map_or(variable, |(name, _)| name);
    let all: Vec<_> = variables.collect();
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<_> =
        all.into_iter().rev().filter(|variable| seen.insert(name(variable))).collect();
    kept.reverse();
    kept
}

/// The limits that are given, by their number (RLIMIT_* of getrlimit(2), x86_64).
fn rlimits(limits: &ResourceLimits) -> impl Iterator<Item = (u32, u64)> {
    [
        (0, limits.cpu),
        (1, limits.fsize),
        (2, limits.data),
        (3, limits.stack),
        (4, limits.core),
        (5, limits.rss),
        (6, limits.nproc),
        (7, limits.nofile),
        (8, limits.memlock),
        (9, limits.address_space),
        (10, limits.locks),
        (11, limits.sigpending),
        (12, limits.msgqueue),
        (13, limits.nice),
        (14, limits.rtprio),
    ]
    .into_iter()
    .filter_map(|(number, value)| Some((number, value?)))
}

fn rlimit_name(number: u32) -> &'static str {
    const NAMES: [&str; 15] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
    ];
    usize::try_from(number)
        .ok()
        .and_then(|number| NAMES.get(number))
        .copied()
        .unwrap_or("an unknown resource")
}

/// What a client is told about a process that could not be started, in the originals' words where
/// clients match on them.
pub fn explain(failure: &Failure, spec: &ProcessSpec) -> Error {
    const ENOENT: i32 = 2;
    const EVERYWHERE: &str = "executable file not found in $PATH";
    let reason = std::io::Error::from_raw_os_error(failure.errno);
    let reason = reason.to_string();
    let reason = reason.split(" (os error").next().unwrap_or_default().to_lowercase();
    let not_found = |why: &str| {
        let path = &spec.path;
        Error::ExecutableNotFound(format!(
            "exec failed: unable to start container process: exec: \"{path}\": {why}"
        ))
    };
    let (user, group) = spec.user.split_once(':').unwrap_or((&spec.user, ""));
    match failure.step {
        Step::User => {
            Error::Plain(format!("unable to find user {user}: no matching entries in passwd file"))
        }
        Step::Group => {
            Error::Plain(format!("unable to find group {group}: no matching entries in group file"))
        }
        // An empty path is a name that is nowhere, not the directory that a search would try.
        Step::Execute if spec.path.is_empty() => not_found(EVERYWHERE),
        Step::PathSearch => not_found(EVERYWHERE),
        Step::Execute if failure.errno == ENOENT => {
            not_found(&format!("stat {}: no such file or directory", spec.path))
        }
        Step::Execute => Error::Plain(format!("exec: \"{}\": {reason}", spec.path)),
        Step::Directory if !spec.dir.is_empty() && !spec.dir.starts_with('/') => {
            Error::Plain("Cwd must be an absolute path".into())
        }
        Step::Directory => Error::Plain(format!(
            "chdir to cwd (\"{}\") set in config.json failed: {reason}",
            spec.dir
        )),
        Step::Rlimit => Error::Plain(format!(
            "cannot set the resource limit {}: {reason}",
            rlimit_name(failure.detail)
        )),
        Step::Namespaces => {
            Error::Plain(format!("cannot join the container's namespaces: {reason}"))
        }
        Step::AppArmor => {
            Error::Plain(format!("cannot change to the server's AppArmor profile: {reason}"))
        }
        Step::Cgroup => Error::Plain(format!("cannot join the container's cgroups: {reason}")),
        step => Error::Plain(format!("cannot start the process: {step:?}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_equal_variables_the_last_wins() {
        let variables = ["A=1", "B=2", "A=3", "C", "B=4"];
        assert_eq!(last_of_each(variables.into_iter()), ["A=3", "C", "B=4"]);
    }

    #[test]
    fn a_nul_byte_is_refused_by_name() {
        let around = |environment| Surroundings {
            environment,
            bounds: crate::identity::bounds(false, 0),
            seccomp: None,
            no_new_privileges: false,
            apparmor: None,
        };
        let shell = || ProcessSpec { path: "/bin/sh".into(), ..ProcessSpec::default() };
        let bad = || "a\0b".to_owned();
        for (spec, environment, what) in [
            (ProcessSpec { path: bad(), ..shell() }, vec![], "the process's path"),
            (ProcessSpec { args: vec![bad()], ..shell() }, vec![], "an argument"),
            (ProcessSpec { env: vec![bad()], ..shell() }, vec![], "an environment variable"),
            (ProcessSpec { dir: bad(), ..shell() }, vec![], "the working directory"),
            (ProcessSpec { user: bad(), ..shell() }, vec![], "the user"),
            (shell(), vec!["A=\0"], "an environment variable"),
        ] {
            let error = plan(&spec, &around(environment)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{what} contains a NUL byte: ")), "{error}");
        }
    }

    #[test]
    fn failures_are_told_in_the_words_that_clients_match() {
        let spec =
            ProcessSpec { path: "nope".into(), user: "bob:staff".into(), ..ProcessSpec::default() };
        let told = |step, errno| explain(&Failure { step, errno, detail: 7 }, &spec).to_string();
        assert_eq!(
            told(Step::User, 2),
            "unable to find user bob: no matching entries in passwd file"
        );
        assert_eq!(
            told(Step::Group, 2),
            "unable to find group staff: no matching entries in group file"
        );
        assert!(told(Step::PathSearch, 2).contains("executable file not found in $PATH"));
        assert!(told(Step::Execute, 13).ends_with("permission denied"));
        assert!(told(Step::Rlimit, 1).contains("nofile"));
    }
}
