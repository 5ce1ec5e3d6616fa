"""Training: how (recipe), what happens to the pictures (augment), the one loop (loop), resuming (checkpoint)."""

import os

# Torch's threads otherwise wait for each other by spinning. With one other busy process on two cores that made training
# 20 times slower (18 instead of 417 pictures/s, MobileNet v1 0.25 at 32x32). Read when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
