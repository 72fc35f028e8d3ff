"""What the kernel machine is compared with: probes of the frozen features, and training."""
