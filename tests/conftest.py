import os

import torch

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # each worker has a core
    os.environ["OMP_NUM_THREADS"] = "1"  # and so have the commands it starts
