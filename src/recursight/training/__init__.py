"""Training: batches on the device, the loop, its optimizers, checkpoints and probes."""
