"""Child of the kill test: for every line `PATH SECONDS` on stdin, a run that is killed.

Each run is a fork of this process, which has imported what it needs, so that fifty take seconds.
It reports `complete N` on stdout when N steps are safe on disk; after it, this process reports
`ended`. SECONDS is when SIGKILL comes, counted from the fork; `inf` for never.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import synthetic_run

from xray.recorder import StoreRecorder

STEPS = 10


def report(text: str) -> None:
    os.write(1, f"{text}\n".encode())  # one write, whole at once, whenever the kill comes


def run(path: str) -> None:
    recorder = StoreRecorder(path, synthetic_run.header(STEPS))
    for step in range(STEPS):
        synthetic_run.write_step(recorder, step)
        recorder.complete(step)
        report(f"complete {recorder.completed}")
    recorder.write("image", synthetic_run.values("image"))
    recorder.close()
    report(f"complete {recorder.completed}")


def main() -> None:
    assert "tensorflow" not in sys.modules
    assert threading.active_count() == 1, "a fork would lose Zarr's thread"
    for line in sys.stdin:
        path, seconds = line.rsplit(maxsplit=1)
        child = os.fork()
        if child == 0:
            run(path)
            os._exit(0)
        if seconds != "inf":
            time.sleep(float(seconds))
            os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
        _, status = os.waitpid(child, 0)
        report("ended" if os.WIFSIGNALED(status) or status == 0 else f"error {status}")


if __name__ == "__main__":
    main()
