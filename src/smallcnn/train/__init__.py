"""Training: how (recipe), what happens to the pictures (augment), the one loop (loop), resuming (checkpoint)."""

import os

# Torch's OpenMP threads wait for each other by spinning, by default 300,000 times. Beside one other busy process on two
# cores that made training more than ten times slower. Pictures per second, MobileNet v1 0.25 shallow at 32x32, two
# threads, alone / beside a busy process: 300,000 spins 1083 / about 20, 1000 spins 911 / 329, none at all 594 / 438.
# Read when torch is first imported; whoever sets it decides.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
