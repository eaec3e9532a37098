"""What ``run`` and ``train`` do, in order: corpus, datasets, base model, adapters, run folder."""
