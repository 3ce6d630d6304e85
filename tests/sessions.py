"""The processes of a command that leads a session of its own."""

import contextlib
import os

import psutil


def session(leader: int) -> list[psutil.Process]:
    """The living processes of the session that the process `leader` began."""
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):  # it may end meanwhile
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process)
    return members
