"""A lane on a machine that is busy with other things: it starts late."""

import time

from sync.lane_process import main

LATE_S = 4.0

if __name__ == "__main__":
    time.sleep(LATE_S)
    main()
