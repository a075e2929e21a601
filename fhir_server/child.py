"""Child processes that end when we do, however we end."""

import os
import signal
import sys

# Runs in the child just before it becomes the command: its files are its user's alone, and when we die it gets the signal
# (prctl(2), PR_SET_PDEATHSIG). A preexec_fn would run Python in the forked copy of a process with threads, which may deadlock.
_BECOME = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[2]))
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.umask(0o077)
os.execv(sys.argv[3], sys.argv[3:])
"""


def ends_with_us(command: list[str], with_signal: signal.Signals) -> list[str]:
    """The command line that runs `command` (an absolute path first) so. To be started from the main thread (Linux)."""
    return [sys.executable, "-I", "-S", "-c", _BECOME, str(os.getpid()), str(int(with_signal)), *command]
