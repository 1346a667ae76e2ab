"""``DistillationTrainer`` and what it adds to ``transformers.Trainer``."""
