"""Runs a command on a terminal of its own and prints what it shows there.

    on_terminal.py COLUMNS TYPED COMMAND...
"""

import fcntl
import os
import pty
import struct
import sys
import termios

columns, typed, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
child, terminal = pty.fork()
if child == 0:
    # The size must be known before the command looks.
    size = struct.pack("HHHH", 40, columns, 0, 0)
    fcntl.ioctl(1, termios.TIOCSWINSZ, size)
    os.execvp(command[0], command)
if typed:
    os.write(terminal, typed.encode())
shown = b""
while True:
    try:
        part = os.read(terminal, 65536)
    except OSError:
        break
    if not part:
        break
    shown += part
_, status = os.waitpid(child, 0)
sys.stdout.buffer.write(shown)
sys.exit(os.waitstatus_to_exitcode(status))
