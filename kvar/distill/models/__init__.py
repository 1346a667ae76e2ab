"""Load, build, prune, adapt and check students and teachers, seq2seq and causal."""

from kvar.distill.models.build import build_model, count_parameters
from kvar.distill.models.check import check_models
from kvar.distill.models.load import load_model, load_tokenizer
from kvar.distill.models.lora import add_lora, save_model
from kvar.distill.models.prune import parse_layers, prune_layers
from kvar.rollouts import check_lengths

__all__ = [
    "add_lora",
    "build_model",
    "check_lengths",
    "check_models",
    "count_parameters",
    "load_model",
    "load_tokenizer",
    "parse_layers",
    "prune_layers",
    "save_model",
]
