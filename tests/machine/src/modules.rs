//! Kernel modules: which depend on which, and what to leave out of their files.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// What containers, their networks and the machine's own devices need. The rest stays behind:
/// each module costs a few milliseconds of every cold boot.
const WANTED: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_rng",
    "overlay",
    "squashfs",
    "loop",
    "fuse",
    "quota_v2",
    "veth",
    "vxlan",
    "bridge",
    "br_netfilter",
    "dummy",
    "tun",
    "ifb",
    "nf_tables",
    "nfnetlink",
    "nfnetlink_log",
    "nf_conntrack",
    "nf_conntrack_netlink",
    "nf_nat",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_ct",
    "nft_limit",
    "nft_log",
    "nft_redir",
    "nft_reject",
    "nft_reject_inet",
    "nft_reject_ipv4",
    "nft_fib_inet",
    "nft_quota",
    "nft_compat",
    "nf_log_syslog",
    "ip_tables",
    "iptable_filter",
    "iptable_nat",
    "xt_owner",
    "xt_conntrack",
    "xt_comment",
    "xt_multiport",
    "xt_mark",
    "xt_statistic",
    "xt_LOG",
    "xt_MASQUERADE",
    "sch_tbf",
    "sch_htb",
    "sch_netem",
    "sch_ingress",
    "cls_u32",
    "cls_matchall",
    "act_police",
    "act_mirred",
];

/// Devices that two modules would make unasked.
const PARAMETERS: &[(&str, &str)] = &[("dummy", "numdummies=0"), ("ifb", "numifbs=0")];

const SIGNATURE_MARK: &[u8] = b"~Module signature appended~\n";

/// Names and contents of all wanted modules and those they need, in an order in which they can be
/// loaded. Their signatures are cut off: to verify them takes an emulated machine a second.
pub fn in_order(directory: &Path) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut files = HashMap::new();
    find(&directory.join("kernel"), &mut files)?;
    let builtin = fs::read_to_string(directory.join("modules.builtin"))?;
    let builtin: HashSet<String> = builtin.lines().map(|path| name_of(Path::new(path))).collect();
    let mut loader = Loader { files, builtin, seen: HashSet::new(), ordered: Vec::new() };
    for name in WANTED {
        loader.add(name)?;
    }
    Ok(loader.ordered)
}

/// Parameters that a module is loaded with.
pub fn parameters(name: &str) -> &'static str {
    PARAMETERS.iter().find(|(module, _)| *module == name).map_or("", |(_, parameters)| parameters)
}

struct Loader {
    files: HashMap<String, PathBuf>,
    builtin: HashSet<String>,
    seen: HashSet<String>,
    ordered: Vec<(String, Vec<u8>)>,
}

impl Loader {
    fn add(&mut self, name: &str) -> anyhow::Result<()> {
        if self.builtin.contains(name) || !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let path = self.files.get(name).with_context(|| format!("no kernel module {name}"))?;
        let mut content = fs::read(path).with_context(|| format!("cannot read {path:?}"))?;
        strip_signature(&mut content);
        for needed in dependencies(&content) {
            self.add(&needed)?;
        }
        self.ordered.push((name.to_owned(), content));
        Ok(())
    }
}

fn find(directory: &Path, files: &mut HashMap<String, PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {directory:?}"))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "ko") {
            files.insert(name_of(&entry.path()), entry.path());
        }
    }
    Ok(())
}

/// The kernel takes `-` and `_` in a name for the same.
fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_")
}

/// What the module's own `.modinfo` says: the package has no modules.dep, which depmod(8) makes
/// from the same words at installation.
fn dependencies(content: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let start = content.windows(KEY.len()).position(|window| window == KEY);
    let rest = start.map_or(&[][..], |start| &content[start + KEY.len()..]);
    let value = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// `[module][signature][12 bytes, the last 4 the signature's length in big endian][mark]`
/// (`linux/module_signature.h`).
fn strip_signature(content: &mut Vec<u8>) {
    let Some(signed) = content.strip_suffix(SIGNATURE_MARK) else { return };
    let Some((signed, length)) = signed.split_last_chunk::<4>() else { return };
    let signature = u32::from_be_bytes(*length) as usize + 8;
    if let Some(length) = signed.len().checked_sub(signature) {
        content.truncate(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_cut_off_and_nothing_else() {
        let mut content = b"the module".to_vec();
        strip_signature(&mut content);
        assert_eq!(content, b"the module");
        content.extend_from_slice(&[9; 300]);
        content.extend_from_slice(&[0; 8]);
        content.extend_from_slice(&300_u32.to_be_bytes());
        content.extend_from_slice(SIGNATURE_MARK);
        strip_signature(&mut content);
        assert_eq!(content, b"the module");
        let mut short = [&[0xff; 12], SIGNATURE_MARK].concat();
        let before = short.clone();
        strip_signature(&mut short);
        assert_eq!(short, before);
    }

    #[test]
    fn dependencies_are_read_from_the_module_itself() {
        assert_eq!(
            dependencies(b"ELF\0license=GPL\0depends=nf-nat,x_tables\0name=y\0"),
            ["nf_nat", "x_tables"]
        );
        assert!(dependencies(b"ELF\0depends=\0name=y\0").is_empty());
        assert!(dependencies(b"ELF").is_empty());
    }
}
