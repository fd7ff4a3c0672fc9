#!/bin/sh
# Runs once the environment of torch.yaml is made. sam2 is built against this environment's torch, which its build would
# otherwise fetch again, and without its CUDA extension. Its version is that of requirements.lock.
set -e
SAM2_BUILD_CUDA=0 python -m pip install --no-build-isolation --no-deps "sam2==1.1.0"
