"""What a process gives up for good: files, the network, other processes. No root is needed.

    confine() -> the names of what the kernel took away

| kernel offers         | what goes                                                               |
|-----------------------|-------------------------------------------------------------------------|
| seccomp (since 3.17)  | every system call but those that decoding needs (`ALLOWED`); x86-64     |
| landlock (since 5.13) | opening any file; TCP since 6.7; signals to other processes since 6.12  |

What is open stays open. Everything is done through ctypes; where the kernel refuses, nothing goes,
and the caller is told.
"""

import ctypes
import os
import platform
import struct
import sys

# fmt: off
ALLOWED = dict(
    mmap=9, mprotect=10, munmap=11, brk=12, mremap=25, madvise=28,
    # what is open: the socket to the worker, the bytes to decode
    read=0, write=1, close=3, fstat=5, lseek=8, pread64=17, readv=19, writev=20, preadv=295,
    poll=7, ppoll=271, sendto=44, recvfrom=45, sendmsg=46, recvmsg=47,
    rt_sigaction=13, rt_sigprocmask=14, rt_sigreturn=15, sigaltstack=131, alarm=37, setitimer=38,
    nanosleep=35, clock_nanosleep=230, clock_gettime=228, clock_getres=229, time=201,
    gettimeofday=96,
    # threads of its own
    futex=202, set_tid_address=218, set_robust_list=273, rseq=334, membarrier=324, gettid=186,
    sched_yield=24, sched_getaffinity=204, getcpu=309, getpid=39, restart_syscall=219,
    getrandom=318, getrusage=98, sysinfo=99, exit=60, exit_group=231,
)
# fmt: on
"""Numbers of x86-64 system calls; the kernel's arch/x86/entry/syscalls/syscall_64.tbl."""
TGKILL = 234
CLONE, CLONE3, CLONE_THREAD = 56, 435, 0x10000
X86_64 = 0xC000003E
"""AUDIT_ARCH_X86_64 of linux/audit.h."""
ALLOW, DENY = 0x7FFF0000, 0x00050000
"""SECCOMP_RET_ALLOW and _ERRNO of linux/seccomp.h; the error stands in the low 16 bits."""
LOAD, EQUALS, HAS, RETURN = 0x20, 0x15, 0x45, 0x06
"""BPF: load a word of the call's description, jump if equal, jump if a bit is set, return."""
EPERM, ENOSYS = 1, 38


def confine() -> list[str]:
    """This process opens no file and no socket any more and starts no other; which means did it."""
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0):  # PR_SET_NO_NEW_PRIVS, which both ask for
        return []
    return [
        name for name, done in (("landlock", landlock(libc)), ("seccomp", seccomp(libc))) if done
    ]


def landlock(libc: ctypes.CDLL) -> bool:
    """No file can be opened, no TCP port used: rules without an exception (linux/landlock.h)."""
    create, restrict = 444, 446
    version = libc.syscall(create, None, 0, 1)
    if version < 1:
        return False
    files = (1 << (13 + (version >= 2) + (version >= 3) + (version >= 5))) - 1
    rules = struct.pack("=QQQ", files, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    rules = rules[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = libc.syscall(create, rules, len(rules), 0)
    if ruleset < 0:
        return False
    done = libc.syscall(restrict, ruleset, 0)
    os.close(ruleset)
    return int(done) == 0


def seccomp(libc: ctypes.CDLL) -> bool:
    """System calls that are not ALLOWED fail with EPERM, in every thread."""
    if platform.machine() != "x86_64":
        return False
    program = instructions()
    filters = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    header = ctypes.create_string_buffer(
        struct.pack("@HP", len(program), ctypes.addressof(filters))
    )
    return int(libc.syscall(317, 1, 1, header)) == 0  # a filter, for all threads


def instructions() -> list[tuple[int, int, int, int]]:
    """(operation, steps if true, steps if false, number) of the filter."""
    deny = (RETURN, 0, 0, DENY | EPERM)
    allow = (RETURN, 0, 0, ALLOW)
    program = [(LOAD, 0, 0, 4), (EQUALS, 1, 0, X86_64), deny, (LOAD, 0, 0, 0)]
    for number in ALLOWED.values():
        program += [(EQUALS, 0, 1, number), allow]
    # clone3 hides its flags in memory: without it the C library takes clone
    program += [(EQUALS, 0, 1, CLONE3), (RETURN, 0, 0, DENY | ENOSYS)]
    program += [(EQUALS, 0, 3, CLONE), (LOAD, 0, 0, 16), (HAS, 0, 5, CLONE_THREAD), allow]
    program += [(EQUALS, 0, 3, TGKILL), (LOAD, 0, 0, 16), (EQUALS, 0, 1, os.getpid()), allow, deny]
    return program
