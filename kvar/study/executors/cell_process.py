"""One cell of a study in a process of its own: reads its job, a line of JSON, from standard input, and runs it.

Standard input stays open for as long as the process that began this one lives; when it ends, so does this one, and its
run is left as any killed run is, to be gone on with.
"""

from __future__ import annotations

import json
import os
import sys
import threading

__all__ = ["main"]


def main() -> int:
    """Run the job; an error's last line, the last that is written, says what it was."""
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
