"""``DistillationTrainer`` and its additions to ``transformers.Trainer``."""
