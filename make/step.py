"""Run a long command quietly: ``python3 make/step.py LABEL COMMAND...``.

One line a step, with its seconds. While the command runs, a terminal sees a moving line and a log gets a line
every 15 seconds, both with the last thing that the command said. When it fails, the end of its output follows
and its exit status is passed on. Standard library only, since it runs before anything is installed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TAIL = 40  # lines shown of a command that failed


def main(label: str, *command: str) -> int:
    """Run ``command``, report on it, and return its exit status."""
    terminal = sys.stdout.isatty()
    started = time.monotonic()
    with tempfile.NamedTemporaryFile("w", prefix="sgdmix-", suffix=".log", delete=False) as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        path = Path(log.name)
        try:
            while (status := _wait(process, 0.2 if terminal else 15)) is None:
                said = "".join(f", {line.strip()}" for line in _lines(path)[-1:])
                line = f"{label}: {time.monotonic() - started:.0f} s{said}"
                if terminal:
                    print(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
                else:
                    print(line[:160], flush=True)
        except BaseException:  # interrupted: leave nothing running, nothing lying about
            process.terminate()
            process.wait()
            path.unlink(missing_ok=True)
            raise
    seconds = f"{time.monotonic() - started:.0f} s"
    start_of_line = "\r\033[K" if terminal else ""
    if status == 0:
        print(f"{start_of_line}{label}: done in {seconds}", flush=True)
        path.unlink()
    else:
        tail = "\n".join(f"    {line}" for line in _lines(path)[-TAIL:])
        print(f"{start_of_line}{label}: FAILED after {seconds}; the end of {path}:\n{tail}", flush=True)
    return status


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(errors="replace").splitlines() if line.strip()]


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
