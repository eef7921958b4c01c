"""``python -m tests.attack.build DATA OUT BACKEND``: a saliency bank, which the command line does not build."""

from __future__ import annotations

import signal
import sys

from sgdmix_albu.errors import SGDMixError
from sgdmix_albu.io.interrupts import Interrupts

if __name__ == "__main__":
    try:
        with Interrupts(raising=True):
            from sgdmix_albu.saliency import build_bank  # which takes seconds

            build_bank(*sys.argv[1:], size=32, batch_size=2, progress=False)
    except SGDMixError as error:
        print("sgdmix: error:", error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Python ends, and would complain
