"""Goes before what the pages start: lets gloo's threads finish before Python ends, see docs/distributed.md."""

import atexit
import time

atexit.register(time.sleep, 0.5)
