"""Runs a program and holds single threads of it, as a thread that is stuck would be.

    hold_thread.py PROGRAM ARGUMENT...

Reads lines: `hold NAME` stops the thread of that name, `release NAME` lets it go on. Tells on
stderr when that is done. The program ends with this script.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000  # waitpid(2): threads too

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, thread):
    if libc.ptrace(request, thread, None, None) != 0:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of thread {thread}")


def thread_of(process, name):
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/comm") as comm:
            if comm.read().strip() == name:
                return int(thread)
    raise LookupError(f"no thread {name}")


# The program is our child: that is what a Linux with Yama lets an ordinary user trace.
process = os.fork()
if process == 0:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execvp(sys.argv[1], sys.argv[1:])

for line in sys.stdin:
    word, name = line.split()
    thread = thread_of(process, name)
    if word == "hold":
        ptrace(PTRACE_SEIZE, thread)
        ptrace(PTRACE_INTERRUPT, thread)
        os.waitpid(thread, WALL)
    else:
        ptrace(PTRACE_DETACH, thread)
    print(f"done: {word} {name}", file=sys.stderr, flush=True)
