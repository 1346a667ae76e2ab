"""Distillation: the trainer, its settings, its objectives, models and evaluation."""

from kvar.distill.config import DistillationConfig
from kvar.distill.data.dataset import Collator, build_dataset
from kvar.distill.models import (
    add_lora,
    build_model,
    check_lengths,
    check_models,
    count_parameters,
    load_model,
    load_tokenizer,
    parse_layers,
    prune_layers,
    save_model,
)
from kvar.distill.trainer.trainer import DistillationTrainer
from kvar.evaluation.evaluate import Evaluation, decode, evaluate

__all__ = [
    "Collator",
    "DistillationConfig",
    "DistillationTrainer",
    "Evaluation",
    "add_lora",
    "build_dataset",
    "build_model",
    "check_lengths",
    "check_models",
    "count_parameters",
    "decode",
    "evaluate",
    "load_model",
    "load_tokenizer",
    "parse_layers",
    "prune_layers",
    "save_model",
]
