"""The system calls a sandboxed Python program may make, as a seccomp filter (through libseccomp).

An allow-list: what is not named here fails with ENOSYS, so that C libraries fall back to older
calls and calls of future kernels stay closed. No process can be made, no socket but a pair joined
to itself, no namespace, no mount, no memory that escapes the address-space limit (memfd, System V
shared memory), no tracing, no change of a file's mode or times (devices are the machine's own).
"""

from __future__ import annotations

import errno
import os

from areal_real.rewards.errors import SandboxUnavailable

_CLONE_THREAD = 0x00010000  # linux/sched.h

_FILES = """
    read readv write writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range
    stat lstat fstat newfstatat fstatat64 statx statfs fstatfs lseek _llseek open openat creat dup
    dup2 dup3 fcntl fcntl64 ioctl pipe pipe2 access faccessat faccessat2 readlink readlinkat
    getdents getdents64 getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat
    renameat2 link linkat symlink symlinkat truncate ftruncate fallocate fsync fdatasync umask
    flock sendfile copy_file_range
"""
_WAITING = """
    poll ppoll select _newselect pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait
    epoll_pwait epoll_pwait2 eventfd2 pause nanosleep clock_nanosleep restart_syscall futex
    futex_waitv sched_yield
"""
_MEMORY = "mmap mmap2 munmap mprotect mremap madvise brk mincore msync membarrier"
_ITSELF = """
    execve exit exit_group wait4 waitid getpid getppid gettid getuid geteuid getgid getegid
    getresuid getresgid getgroups getpgrp getpgid getsid set_tid_address set_robust_list
    get_robust_list rseq rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait
    rt_sigsuspend rt_sigqueueinfo sigaltstack kill tkill tgkill alarm getitimer setitimer
    timer_create timer_settime timer_gettime timer_delete time times gettimeofday clock_gettime
    clock_getres getrusage getrlimit setrlimit prlimit64 sysinfo uname getrandom getcpu
    sched_getaffinity sched_getparam sched_getscheduler arch_prctl prctl
"""
# asyncio's event loop wakes itself up through a socket pair.
_PAIR = "socketpair send sendto sendmsg recv recvfrom recvmsg shutdown getsockopt setsockopt"
# The harness of a sandbox started by root gives up root with these; later they can only fail.
_IDENTITY = "setgroups setresgid setresuid"
# Calls that Python programs do make: they see "not permitted", not "not implemented".
_REFUSED = "fork vfork socket connect bind listen accept accept4 ptrace mount unshare setns"


def seccomp_program() -> bytes:
    """The filter as BPF instructions, for ``bwrap --seccomp``.

    Raises:
        SandboxUnavailable: libseccomp or its Python binding is missing.
    """
    try:
        import pyseccomp  # type: ignore[import-untyped, unused-ignore]
    except ImportError as exc:
        raise SandboxUnavailable("the Python package pyseccomp is not installed") from exc
    except RuntimeError as exc:
        raise SandboxUnavailable("libseccomp is not installed (Debian: libseccomp2)") from exc
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))

    def add(action: int, name: str, *conditions: object) -> None:
        try:
            rules.add_rule(action, name, *conditions)
        except OSError as exc:
            # Names that this architecture or this libseccomp does not know need no rule.
            if exc.errno not in (errno.EINVAL, errno.EFAULT, errno.EDOM):
                raise

    for name in (_FILES + _WAITING + _MEMORY + _ITSELF + _IDENTITY + " " + _PAIR).split():
        add(pyseccomp.ALLOW, name)
    for name in _REFUSED.split():
        add(pyseccomp.ERRNO(errno.EPERM), name)
    # Threads, not processes. clone3 hides its flags in memory: without it C libraries use clone.
    thread = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, _CLONE_THREAD)
    process = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0)
    add(pyseccomp.ALLOW, "clone", thread)
    add(pyseccomp.ERRNO(errno.EPERM), "clone", process)
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with os.fdopen(fd, "w+b") as program:
        rules.export_bpf(program)
        program.seek(0)
        return program.read()
