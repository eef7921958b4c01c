"""Windows and macOS: no call and no path that only Linux has, but for those named here, each with its guard.

Nothing was run there. ``make check-platforms`` has mypy read the package as on either: it knows what each one has.
"""

from __future__ import annotations

import ast
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

import pytest

from sgdmix_albu.expand.execute import reaper
from sgdmix_albu.io.files import move_folder
from sgdmix_albu.io.places import local_path
from sgdmix_albu.io.storage import Storage
from sgdmix_albu.refine.finetuning.data import _FOLDERS

# Of Python's documentation: "Availability: Unix".
MODULES = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "readline", "resource", "syslog", "termios", "tty"}
NAMES = {
    "os": {"fork", "forkpty", "register_at_fork", "getuid", "geteuid", "getgid", "getegid", "getpgid", "getpriority"}
    | {"killpg", "setsid", "setpgid", "mkfifo", "mknod", "chown", "lchown", "nice", "pread", "pwrite", "posix_spawn"}
    | {"sched_getaffinity", "sched_setaffinity", "statvfs", "sync", "sysconf", "uname", "wait", "wait3", "wait4"}
    | {"getloadavg", "openpty", "sendfile", "memfd_create", "O_NONBLOCK", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"},
    "signal": {"SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIG_BLOCK"}
    | {"SIG_SETMASK", "SIG_UNBLOCK", "alarm", "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait"},
    "select": {"poll", "epoll", "kqueue"},
    "multiprocessing": {"fork"},
    "time": {"clock_gettime", "tzset", "pthread_getcpuclockid"},
}
# Where one stands, and what keeps other systems from it.
ALLOWED = {
    ("io/threads.py", "os.sched_getaffinity"): 'hasattr(os, "sched_getaffinity")',
    ("io/opencv.py", "os.register_at_fork"): 'hasattr(os, "register_at_fork")',
    ("expand/execute/pools.py", "signal.pthread_sigmask"): 'if sys.platform == "win32"',
    ("expand/execute/pools.py", "signal.SIG_BLOCK"): 'if sys.platform == "win32"',
    ("expand/execute/pools.py", "signal.SIG_SETMASK"): 'if sys.platform == "win32"',
    ("expand/execute/reaper.py", "/proc"): "if not _PROCESSES.is_dir():",
    ("refine/finetuning/settings.py", "/proc/cpuinfo"): "except OSError:",
}


def found(source: str) -> Iterator[str]:
    """The calls and paths of a file that not every system has."""
    tree = ast.parse(source)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            name = node.module or ""
            yield from [name] * (name in MODULES)
            yield from (f"{name}.{alias.name}" for alias in node.names if alias.name in NAMES.get(name, ()))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NAMES.get(node.value.id, ()):
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("get_context", "set_start_method"):
            yield from (word for word in map(ast.unparse, node.args) if "fork" in word)
        elif _is_text(node) and id(node) not in texts and re.match(r"/(proc|dev|sys|tmp|etc)(/|$)", node.value):
            yield node.value


def _is_text(node: ast.AST) -> TypeGuard[Any]:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_no_call_that_only_some_systems_have(repository: Path) -> None:
    package = repository / "sgdmix_albu"
    there = {
        (path.relative_to(package).as_posix(), name)
        for path in sorted(package.rglob("*.py"))
        for name in found(path.read_text())
    }
    assert there == set(ALLOWED)
    for (file, _), guard in ALLOWED.items():
        assert guard in (package / file).read_text()


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from resource import getrusage",
        "from os import fork",
        "import os\nos.getuid()",
        "import signal\nx = signal.SIGKILL",
        "open('/proc/self/stat')",
        "import multiprocessing as m\nm.get_context('fork')",
    ],
)
def test_the_walk_finds_each_kind(source: str) -> None:
    assert list(found(source))


def test_names_in_a_folder_have_forward_slashes_everywhere(tmp_path: Path) -> None:
    (tmp_path / "owl" / "barn").mkdir(parents=True)
    (tmp_path / "owl" / "barn" / r"a\b.png").write_bytes(b"x")  # a name of one file, where that is allowed
    assert [name for name, _ in Storage(tmp_path).files()] == [r"owl/barn/a\b.png"]


def test_a_folder_takes_the_name_of_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "file").touch()
    (tmp_path / "empty").mkdir()
    number = (tmp_path / "filled").stat().st_ino
    move_folder(tmp_path / "filled", tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_ino == number
    move_folder(tmp_path / "empty", tmp_path / "new")
    (tmp_path / "other").mkdir()
    with pytest.raises(OSError, match="not empty"):
        move_folder(tmp_path / "other", tmp_path / "new")
    assert (tmp_path / "new" / "file").exists()
    assert stat.S_ISDIR((tmp_path / "other").stat().st_mode)


def test_file_urls(tmp_path: Path) -> None:
    assert local_path("file:///birds/a%20b") == Path("/birds/a b")
    assert local_path("file://localhost/birds") == Path("/birds")


def test_where_there_are_no_lists_of_processes_nothing_is_reaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "_PROCESSES", tmp_path / "proc")
    monkeypatch.setattr(reaper.subprocess, "Popen", None)
    watcher = reaper.Reaper()
    with watcher.marking():
        pass
    watcher.end()


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("cannot read /home/ann/photos/owl/1.png: no image", "cannot read 1.png: no image"),
        (r"cannot read C:\Users\ann\photos\1.png: no image", "cannot read 1.png: no image"),
        (r"cannot read 'D:\\data\\1.png'", "cannot read '1.png'"),
    ],
)
def test_a_card_tells_no_folder_of_any_system(message: str, told: str) -> None:
    assert _FOLDERS.sub("", message) == told
