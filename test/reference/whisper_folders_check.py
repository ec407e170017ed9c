"""What voxtorch saves of a Whisper in CTranslate2's format, opened by transformers, generates the same tokens by default.

After `npm run build` and `npx voxtorch weights whisper-tiny.en`:

    python test/reference/whisper_folders_check.py [--data ../shared/data] [--clips 4] [NAME ...]

It printed:

    whisper-tiny.en: 4 of 4 clips have the same tokens, the last 15 of them
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import soundfile
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

SAVE = """
import { Whisper } from 'voxtorch'
const [name, folder, ...clips] = process.argv.slice(1)
const whisper = await Whisper.fromPretrained(name, { offline: true })
await whisper.save(folder)
const written = []
for (const clip of clips) {
  const { segments } = await whisper.transcribe(clip, { timestamps: false, temperature: 0, noSpeechThreshold: null })
  written.push(segments.flatMap(({ tokens }) => tokens))
}
console.log(JSON.stringify(written))
"""

parser = argparse.ArgumentParser()
parser.add_argument('--data', default='../shared/data')
parser.add_argument('--clips', type=int, default=4)
parser.add_argument('names', nargs='*', default=['whisper-tiny.en'])
arguments = parser.parse_args()
clips = sorted(Path(arguments.data, 'librispeech-other').rglob('*.flac'))[:: 100 // arguments.clips][: arguments.clips]
torch.set_num_threads(2)

for name in arguments.names:
    with tempfile.TemporaryDirectory() as folder:
        command = ['node', '--input-type=module', '-e', SAVE, name, folder, *map(str, clips)]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        model = WhisperForConditionalGeneration.from_pretrained(folder).float().eval()
        extractor = WhisperFeatureExtractor.from_pretrained(folder)
        equal = 0
        for clip, expected in zip(clips, ours):
            samples, rate = soundfile.read(clip, dtype='float32')
            features = extractor(samples, sampling_rate=rate, return_tensors='pt').input_features
            with torch.no_grad():
                tokens = model.generate(features)[0].tolist()
            end = model.generation_config.eos_token_id
            tokens = [token for token in tokens if token != end]
            equal += tokens == expected
            longest = max(len(tokens), len(expected))
            if tokens != expected:
                print(f'{name} {clip.name}:\n  {tokens}\n  {expected}')
        print(f'{name}: {equal} of {len(clips)} clips have the same tokens, the last {longest} of them')
