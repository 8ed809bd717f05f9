//! Which system calls a program may make.
//!
//! About what Docker refuses by default: calls that change the machine (mounts, modules, clocks,
//! namespaces, `kexec`), that have no notion of namespaces (keyrings, `perf`), or that were holes
//! before (`bpf`, `userfaultfd`, `io_uring`). What is refused gives `EPERM`. Calls that are newer
//! than this list give `ENOSYS`, so a new kernel does not widen it; `clone3` does too, because
//! its flags are in memory where a filter cannot see them, and C libraries then use `clone`,
//! whose flags it can see. A list of what is refused, with an upper bound, is as tight as a list
//! of what is allowed and eight times shorter: the kernel tries a filter on every call number
//! when it is set, so its length is start-up time.
//!
//! The library makes the filter; only its first four instructions, for which it has no words, are
//! ours. Programs for another architecture than the kernel's native one are killed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

use super::Isolation;

/// One above the newest call that was considered: `removexattrat`. Also keeps out the x32 calls
/// of `x86_64`, which set a high bit.
const CALL_END: u32 = 467;

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`; `clone` knows
/// no others.
const NAMESPACE_FLAGS: [u64; 7] = [
    0x0002_0000,
    0x0200_0000,
    0x0400_0000,
    0x0800_0000,
    0x1000_0000,
    0x2000_0000,
    0x4000_0000,
];

/// Execution domains that ordinary programs ask for; `!0` only asks which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// `AF_VSOCK`: reaches the hypervisor past every network namespace.
const FAMILY_VSOCK: u64 = 40;

const REFUSED: &[libc::c_long] = &[
    // mounts and roots
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_open_by_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_fanotify_init,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    // namespaces and names
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // the kernel itself
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // the clock
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // keyrings
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // memory of other nodes
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[libc::c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_uselib,
    libc::SYS_ustat,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[libc::c_long] = &[];

/// Looking into other processes: harmless among those of one pid namespace, where the kernel's
/// own checks suffice, and refused where the processes of the node are in sight.
const TRACING: &[libc::c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
];

/// `BPF_LD | BPF_W | BPF_ABS`, `BPF_JMP | BPF_JGE | BPF_K`, `BPF_JMP | BPF_JEQ | BPF_K`,
/// `BPF_RET | BPF_K` of `linux/bpf_common.h`.
const LOAD: u16 = 0x20;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// `SECCOMP_RET_ERRNO`.
const RETURN_ERROR: u32 = 0x0005_0000;

/// Builds the filter: about 350 instructions.
pub(crate) fn build(isolation: Isolation) -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(
        REFUSED
            .iter()
            .chain(REFUSED_HERE)
            .map(|call| (*call, Vec::new())),
    );
    if isolation == Isolation::None {
        rules.extend(TRACING.iter().map(|call| (*call, Vec::new())));
    }
    let namespaces = NAMESPACE_FLAGS.iter().map(|flag| {
        let width = SeccompCmpArgLen::Qword;
        let condition = SeccompCondition::new(0, width, SeccompCmpOp::MaskedEq(*flag), *flag)?;
        SeccompRule::new(vec![condition])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let domains = PERSONALITIES
        .iter()
        .map(|domain| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *domain));
    let other_domain = SeccompRule::new(domains.collect::<Result<_, _>>()?)?;
    rules.insert(libc::SYS_personality, vec![other_domain]);
    let hypervisor =
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, FAMILY_VSOCK)?;
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(vec![hypervisor])?]);

    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?;
    let refused: BpfProgram = filter.try_into()?;
    let mut program = unknown_calls().to_vec();
    program.extend(refused);
    Ok(program)
}

/// Answers `ENOSYS` for `clone3` and for what is newer than this list; goes on otherwise.
fn unknown_calls() -> [sock_filter; 4] {
    let instruction = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    let clone3 = u32::try_from(libc::SYS_clone3).unwrap_or(u32::MAX);
    [
        // The number is the first field of what a filter sees.
        instruction(LOAD, 0, 0, 0),
        instruction(JUMP_IF_AT_LEAST, 1, 0, CALL_END),
        instruction(JUMP_IF_EQUAL, 0, 1, clone3),
        instruction(RETURN, 0, 0, RETURN_ERROR | libc::ENOSYS.unsigned_abs()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_can_be_built_and_is_short() {
        for isolation in [Isolation::Full, Isolation::Unprivileged, Isolation::None] {
            let filter = build(isolation).unwrap();
            assert!(filter.len() < 500, "{} instructions", filter.len());
        }
    }

    #[test]
    fn every_refused_call_is_below_the_end_of_the_list() {
        for call in REFUSED.iter().chain(REFUSED_HERE).chain(TRACING) {
            assert!(*call < libc::c_long::from(CALL_END), "{call}");
        }
    }
}
