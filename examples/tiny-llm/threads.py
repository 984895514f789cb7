"""Threads of the arithmetic. To be imported before torch, whose libraries read these settings as they load."""
import os

# BLAS would start threads of its own on top of PyTorch's, and the two sets fight for the same cores: measured, four
# times slower than one thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# A model this small gains little from a second thread, so it takes one core where nothing is said.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def set_threads():
    import torch
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
