"""The loop: step, engines, optimizers, checkpoints, signals, telemetry."""
