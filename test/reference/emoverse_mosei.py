"""A pickle of the form of MMSA's MOSEI files, with made-up words and numbers: test/fixtures/emoverse/mosei.pkl."""
import pickle
from pathlib import Path

import numpy as np

folder = Path(__file__).parent.parent / "fixtures/emoverse"
folder.mkdir(parents=True, exist_ok=True)


def part(name, count):
    return {
        "raw_text": np.array([f"{name} words {i}" for i in range(count)]),
        "id": [f"{name}$_${i}" for i in range(count)],
        "audio": np.zeros((count, 2, 3), dtype=np.float32),
        "annotations": np.array(["Positive"] * count, dtype=object),
        "regression_labels": np.array([(i % 5 - 2) * 1.5 for i in range(count)], dtype=np.float32),
    }


with open(folder / "mosei.pkl", "wb") as file:
    pickle.dump({"train": part("a", 10), "valid": part("b", 3), "test": part("c", 4)}, file, protocol=4)
