"""Has transformers transcribe with the model of examples/parakeet-small.ts, and compares its texts with those of the example.

    python test/reference/parakeet_small_check.py OUT [COUNT]     OUT is the example's; COUNT files of each set, default 5

For the run in docs/guide/networks.md it prints (transformers 5.24.0, torch 2.13.0): 10 of 10 texts are the same
"""

import json
import sys
import wave
from pathlib import Path

import numpy
import torch
from transformers import AutoModelForTDT, AutoProcessor


def samples_of(path):
    with wave.open(path) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000), path
        return numpy.frombuffer(file.readframes(file.getnframes()), '<i2').astype('float32') / 32768


if __name__ == '__main__':
    out = Path(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    processor = AutoProcessor.from_pretrained(out / 'model')
    model, info = AutoModelForTDT.from_pretrained(out / 'model', output_loading_info=True)
    assert not any(info.values()), info
    model.eval()
    same = 0
    answers = [one for rows in json.loads((out / 'answers.json').read_text()).values() for one in rows[:count]]
    for one in answers:
        inputs = processor.feature_extractor([samples_of(one['path'])], sampling_rate=8000, return_tensors='pt')
        with torch.no_grad():
            found = model.generate(**inputs, return_dict_in_generate=True)
        text = processor.decode(found.sequences[0], skip_special_tokens=True).strip()
        same += text == one['parakeet']
        print(f'{Path(one["path"]).name}: {text!r}' + ('' if text == one['parakeet'] else f', not {one["parakeet"]!r}'))
    print(f'{same} of {len(answers)} texts are the same')
    sys.exit(same != len(answers))
