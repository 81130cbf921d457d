"""Runs Python programs that a model wrote, each in a throw-away process that can harm nobody.

`box.Sandbox` starts bubblewrap, which gives the program a file system of its own (Python's standard
library and shared libraries, read-only, and a small temporary folder), no network, no other
processes, no environment; `syscalls` are the calls left to it; `harness`, inside, lowers its limits
and gives up root. `box.available` tells what this machine lacks.

Not defended against: bugs in the kernel behind the system calls that are left, and hardware side
channels. Memory of a sandbox is bounded by its one process's address space plus its files, not by a
cgroup; many small files take kernel memory beyond that for as long as the sandbox lives.
"""
