"""The host and its GPUs, as the kernel, NVML and the makers describe them."""
