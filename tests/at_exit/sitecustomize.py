"""Python imports this in every process that the pages start: it lets gloo's threads finish, see docs/distributed.md."""

import atexit
import time

atexit.register(time.sleep, 1.0)
