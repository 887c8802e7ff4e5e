"""All figures of one GPU, in one run: `bench/gpu.sh`."""
