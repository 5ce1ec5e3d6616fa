import os

from hypothesis import settings

# The networks here are tiny: on a busy machine a second OpenMP thread made some of them 1000 times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("smallcnn", deadline=None)  # a first call may import torch or find the machine busy
settings.load_profile("smallcnn")
