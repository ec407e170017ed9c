"""What EmoVerse's compute_result.py says of 300 made result files, or how it ends; what MMSA's metrics say of numbers with
exact halves and zeros; what scikit-learn says of labels: test/fixtures/emoverse/scores.json.

    python test/reference/emoverse_scores.py COMPUTE_RESULT.PY MMSA/utils/metricsTop.py

Both are read where they are and not copied.
"""
import contextlib
import importlib.util
import io
import json
import random
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

warnings.simplefilter("ignore")


def load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


original, mmsa = load("compute_result", sys.argv[1]), load("metricsTop", sys.argv[2])
rng = random.Random(7)
MOSEI = ["Happy.", "Sadness.", "Surprise.", "Disgust.", "Anger.", "Fear.", "Neutral."]
CAUSE = ["disgust", "anger", "joy", "sadness", "surprise", "fear"]
IMAGES = ["a/1.png", "a/2.png", "b/1.png"]


def sometimes(share, value, other):
    return value if rng.random() < share else other


def sentiment(odd):
    label = rng.choice(["Positive.", "Negative."])
    wrong = rng.choice(["Positive.", "Negative.", "positive", "It is negative.", "", "Neutral.", "Positive. ", "a positive or negative"])
    return label, sometimes(0.6, label, wrong)


def emotion(odd):
    label = rng.choice(MOSEI)
    wrong = rng.choice(MOSEI)
    if odd:
        wrong = rng.choice([wrong, "Joy.", "happy", "surprise and fear", "", "It is anger"])
    return label, sometimes(0.5, label, wrong)


def causes(odd):
    target, name = rng.randint(1, 12), rng.choice(CAUSE + (["neutral"] if odd else []))
    pairs = [f"{target}_{name},{rng.randint(1, 12)}" for _ in range(rng.randint(0 if odd else 1, 3))]
    said = [sometimes(0.6, pair, f"{target}_{rng.choice(CAUSE)},{rng.randint(1, 12)}") for pair in pairs or ["1_joy,1"]]
    if rng.random() < 0.2:
        said.append(said[0])
    response = ";".join(said)
    if odd:
        response = rng.choice([response, response, "", "none", "1_joy", "3,4", response.replace(";", "； "), "the 3rd and ４"])
    return ";".join(pairs), response


FUNCTIONS = [
    ("sentiment", "emoverse", original.emoverse_sentiment, sentiment, False),
    ("emotion", "emoverse", original.emoverse_emotion, emotion, False),
    ("causes", "emoverse", original.emoverse_ecf2, causes, False),
    ("sentiment", "other", original.other_sentiment, sentiment, False),
    ("emotion", "other", original.other_emotion, emotion, False),
    ("causes", "other", original.other_ecf2, causes, False),
    ("sentiment", "emoverse", original.compute_pos, sentiment, True),
    ("sentiment", "other", original.compute_other_pos, sentiment, True),
]
cases = []
texts = {}


def text(value):
    """The number of a text in the table."""
    return texts.setdefault(value, len(texts))


with tempfile.TemporaryDirectory() as folder:
    for number in range(300):
        task, variant, function, make, pictured = FUNCTIONS[number % len(FUNCTIONS)]
        odd = rng.random() < 0.35
        size = rng.choice([0, 1, 2, 12]) if odd else rng.choice([16, 20])
        if task == "causes" and not odd:
            size = 28
        records = []
        for _ in range(size):
            label, response = make(odd)
            record = {"label": label, "response": response}
            if pictured:
                record["images"] = [rng.choice(IMAGES)]
            if odd and rng.random() < 0.05:
                record[rng.choice(["response", "label"])] = None
            if odd and rng.random() < 0.05:
                record.pop(rng.choice(list(record)))
            records.append(record)
        lines = [json.dumps(record, ensure_ascii=False) for record in records]
        if odd and rng.random() < 0.1:
            lines.append("{broken")
        path = Path(folder) / "results.jsonl"
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        arguments = [str(path)]
        pictures = None
        if pictured:
            pictures = IMAGES[: rng.choice([1, 2])]
            subset = Path(folder) / "subset.json"
            subset.write_text(json.dumps([{"images": [image]} for image in pictures]))
            arguments.append(str(subset))
        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                function(*arguments)
            result = {"printed": out.getvalue().split()}
        except Exception as error:
            result = {"error": type(error).__name__}
        short = [
            [text(record.get(key, "<absent>")) for key in ("label", "response")]
            + ([IMAGES.index(record["images"][0]) if "images" in record else -1] if pictured else [])
            for record in records
        ]
        cases.append(
            {
                "task": task,
                "variant": variant,
                                "broken": bool(lines) and lines[-1] == "{broken",
                "pictures": pictures,
                "records": short,
                **result,
            }
        )

numbers = []
metrics = mmsa.MetricsTop("regression").getMetics("MOSEI")
for seed in range(6):
    generator = np.random.default_rng(seed)
    truth = np.round(generator.uniform(-3.4, 3.4, 24) * 2) / 2 if seed % 2 else generator.uniform(-3, 3, 24)
    said = np.round((truth + generator.normal(0, 1, 24)) * 2) / 2 if seed < 4 else truth + generator.normal(0, 1, 24)
    truth[:6] = 0
    said[3:9] = 0
    truth, said = truth.astype(np.float32), said.astype(np.float32)
    values = metrics(torch.from_numpy(said), torch.from_numpy(truth))
    numbers.append(
        {
            "truth": [float(x) for x in truth],
            "said": [float(x) for x in said],
            "metrics": {key: float(value) for key, value in values.items()},
        }
    )

MELD = ["Anger.", "Sadness.", "Surprise.", "Disgust.", "Joy.", "Neutral.", "Fear."]
labels = []
for seed in range(4):
    truth = [rng.choice(MELD[: 7 - seed]) for _ in range(40)]
    said = [sometimes(0.5, label, rng.choice(MELD + ["(unread)"])) for label in truth]
    names = MELD + ["(unread)"]
    precision, recall, f1, support = precision_recall_fscore_support(truth, said, labels=MELD, zero_division=0)
    labels.append(
        {
            "truth": truth,
            "said": said,
            "accuracy": float(np.mean([a == b for a, b in zip(truth, said)])),
            "weightedF1": float(f1_score(truth, said, labels=MELD, average="weighted", zero_division=0)),
            "macroF1": float(f1_score(truth, said, labels=MELD, average="macro", zero_division=0)),
            "precision": precision.tolist(),
            "recall": recall.tolist(),
            "f1": f1.tolist(),
            "support": support.tolist(),
            "confusion": confusion_matrix(truth, said, labels=names).tolist()[:7],
        }
    )

folder = Path(__file__).parent.parent / "fixtures/emoverse"
folder.mkdir(parents=True, exist_ok=True)
path = folder / "scores.json"
path.write_text(json.dumps({"texts": list(texts), "cases": cases, "numbers": numbers, "labels": labels}, ensure_ascii=False, separators=(",", ":")))
ended = {}
for case in cases:
    key = case.get("error", "numbers")
    ended[key] = ended.get(key, 0) + 1
print(path.stat().st_size, ended)
