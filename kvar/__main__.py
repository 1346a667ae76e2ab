"""``python -m kvar``, and so ``accelerate launch -m kvar train CONFIG``."""

from __future__ import annotations

import sys

from kvar.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
