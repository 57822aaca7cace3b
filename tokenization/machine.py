"""What packages expect of any machine and some lack: a home, a name of the user, room for caches.

| missing                                       | what packages are given                      |
|-----------------------------------------------|----------------------------------------------|
| HOME, and an entry in /etc/passwd             | a folder of their own under TMPDIR           |
| a name of the user (containers run as any id) | `uid-12345`                                  |
| a home that can be written                    | caches beside it, under TMPDIR               |

Caches are no more than that: what is in such a folder goes with the process.
"""

import atexit
import os
import pwd
import shutil
import tempfile
from pathlib import Path

NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")
"""Where getpass.getuser looks for the user's name before it asks /etc/passwd."""


def settle() -> None:
    """This process and those it starts find a user's name, a home, and a folder for caches."""
    if not any(os.environ.get(name) for name in NAMES) and not is_known():
        os.environ["LOGNAME"] = f"uid-{os.getuid()}"
    if not os.environ.get("HOME") and not is_known():
        os.environ["HOME"] = fresh_folder()
    if not os.environ.get("XDG_CACHE_HOME") and not can_be_written(Path.home() / ".cache"):
        held = Path.home() / ".cache" / "huggingface"
        if held.is_dir():  # an image's own, to be read
            os.environ.setdefault("HF_HOME", str(held))
        os.environ["XDG_CACHE_HOME"] = fresh_folder()


def is_known() -> bool:
    """Whether /etc/passwd (or what stands for it) knows the user."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True


def fresh_folder() -> str:
    """A folder that is the process' own, gone when it ends."""
    folder = tempfile.mkdtemp(prefix="smolvlm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def can_be_written(folder: Path) -> bool:
    """Whether files can be put into the folder, which is made where it can be."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
