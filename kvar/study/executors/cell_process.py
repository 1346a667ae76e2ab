"""Main program of a process that runs one cell of a study; the job is a line of JSON on standard input.

Standard input stays open while the parent process lives. When it closes, this process exits, and the run can be resumed
like any killed run.
"""

from __future__ import annotations

import json
import os
import sys
import threading

__all__ = ["main"]


def main() -> int:
    """Run the job; the last line written describes an error."""
    from kvar.study.executors.local import Job, run_job

    job = Job(**json.loads(sys.stdin.readline()))
    threading.Thread(target=_follow, daemon=True).start()
    try:
        run_job(job)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}", flush=True)
        return 1
    except KeyboardInterrupt as error:
        print(f"interrupted: {error}", flush=True)
        return 130
    return 0


def _follow() -> None:
    while os.read(0, 1024):
        pass
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
