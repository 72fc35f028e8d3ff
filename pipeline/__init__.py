"""entk: empirical-NTK features of pretrained networks and kernel ridge regression on them."""

import os

__version__ = "0.1.0"

if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    # Before torch loads OpenMP: a thread that waits for the others goes to sleep soon, instead of
    # spinning for a millisecond, in which the others may not run where cores are shared with other
    # jobs. A fit of 1.3 s took 162 s beside three others on two cores and takes 9 s; alone nothing
    # changes.
    os.environ["GOMP_SPINCOUNT"] = "1000"
