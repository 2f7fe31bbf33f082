"""See what is wrong before it costs something: `python -m toolchain.day_two.doctor --stack dev`.

Exits with 0 if nothing is wrong, 1 if something is, 2 if something could not be asked.
"""

from __future__ import annotations

import sys

from toolchain.day_two.doctor import ground

if __name__ == "__main__":
    missing = ground.look()
    if missing:
        print(ground.shown(missing, "", as_json="--json" in sys.argv))  # noqa: T201  (a command's own output)
        sys.exit(1)
    from toolchain.day_two.doctor.command import main

    sys.exit(main())
