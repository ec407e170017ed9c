"""TensorBoard's own reader against a run of examples/trainer.ts: every scalar as metrics.jsonl has it, in float32.

    npx tsx examples/trainer.ts DIR && python test/reference/trainer_tensorboard_check.py DIR

Prints (tensorboard 2.21.0):
    train/loss: 900 points
    train/gradNorm: 900 points
    train/learningRate: 900 points
    eval/loss: 12 points
    eval/accuracy: 12 points
    all as in metrics.jsonl
"""

import json
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing import event_accumulator

NAMES = {
    "train/loss": "loss",
    "train/gradNorm": "gradNorm",
    "train/learningRate": "learningRate",
    "eval/loss": "evalLoss",
    "eval/accuracy": "evalAccuracy",
}


def float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def main(directory: Path) -> None:
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    events = event_accumulator.EventAccumulator(
        str(directory / "events"), size_guidance={event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    )
    events.Reload()
    for tag, name in NAMES.items():
        found = [(event.step, event.value) for event in events.Scalars(tag)]
        wanted = [(line["step"], float32(line[name])) for line in lines if name in line]
        assert found == wanted, f"{tag} differs"
        print(f"{tag}: {len(found)} points")
    tables = [tag for tag in events.Tags()["tensors"] if tag.startswith("arguments")]
    assert tables, "the arguments are missing"
    print("all as in metrics.jsonl")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
