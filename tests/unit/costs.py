"""What a call costs, whatever else the machine and the interpreter do meanwhile."""

import gc
import time
from collections.abc import Callable


def cost_s(call: Callable[[], object]) -> float:
    """Return the processor time of this thread for a call, without the garbage collector's."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        started = time.thread_time()
        call()
        return time.thread_time() - started
    finally:
        if was_enabled:
            gc.enable()
