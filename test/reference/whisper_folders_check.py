"""What voxtorch saves of published Whisper weights, opened by transformers, writes the same with default settings: the spectrogram,
the ids of `generate` with and without timestamps, and the text.

After `npm run build` and `npx voxtorch weights whisper-base`:

    python test/reference/whisper_folders_check.py [--data ../shared/data] [--clips 4] [NAME ...]

The first number is max|a-b| / max|b| of the spectrograms that voxtorch and the saved preprocessor_config.json make. It printed, for
whisper-base and whisper-tiny.en and one clip:

    whisper-base     2033-164914-0004.flac  spectrogram 5e-06  generate =  transcribe, timestamps: false =  transcribe =  text =
    whisper-tiny.en  2033-164914-0004.flac  spectrogram 5e-06  generate =  transcribe, timestamps: false =  transcribe =  text =
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
RUN = """
const [module, name, folder, ...clips] = process.argv.slice(1)
const v = await import(module)
const model = await v.Whisper.fromPretrained(name, { offline: true })
await model.save(folder)
const found = []
for (const [i, clip] of clips.entries()) {
  const samples = await v.readClip(clip)
  const mel = await v.logMelSpectrogram(samples, { nMels: model.config.numMelBins, length: 480000 })
  const inputFeatures = mel.narrow(1, 0, 3000).unsqueeze(0)
  await v.saveSafetensors(`${folder}/clip-${i}.safetensors`, { samples, inputFeatures })
  const ids = async (timestamps) => (await model.transcribe(samples, { timestamps })).segments.flatMap(({ tokens }) => tokens)
  const { text } = await model.transcribe(samples)
  const { tokens } = await model.generate({ inputFeatures })
  found.push({ text, generated: tokens[0].map(Number), plain: await ids(false), timed: await ids(true) })
}
console.log(JSON.stringify(found))
"""


def compared(name, clips):
    with tempfile.TemporaryDirectory() as folder:
        module = (ROOT / 'dist/index.js').as_uri()
        command = ['node', '--input-type=module', '-e', RUN, '--', module, name, folder, *(str(clip.resolve()) for clip in clips)]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        model, info = transformers.WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
        lacking = {key: value for key, value in info.items() if value}
        assert not lacking, lacking
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        end = model.generation_config.eos_token_id
        first = model.generation_config.no_timestamps_token_id + 1
        failed = False
        for i, (clip, here) in enumerate(zip(clips, ours)):
            read = load_file(f'{folder}/clip-{i}.safetensors')
            features = extractor(read['samples'].numpy(), sampling_rate=16000, return_tensors='pt').input_features
            error = ((read['inputFeatures'] - features).abs().max() / features.abs().max()).item()
            with torch.no_grad():
                plain, timed = (model.generate(features, return_timestamps=times)[0].tolist() for times in (False, True))
            text = [token for token in plain if token < end]
            spoken = [token for token in timed if token < end or token >= first]
            equal = {
                'generate': [token for token in here['generated'] if token < end] == text,
                'transcribe, timestamps: false': here['plain'] == text,
                'transcribe': here['timed'] == spoken,
                'text': here['text'] == tokenizer.decode([token for token in spoken if token < end]).strip(),
            }
            good = all(equal.values()) and error < 1e-5
            failed |= not good
            marks = '  '.join(f'{key} {"=" if same else "DIFFERS"}' for key, same in equal.items())
            print(f'    {name:16} {clip.name}  spectrogram {error:.0e}  {marks}')
            if not good:
                print(json.dumps({'here': here, 'transformers': {'plain': plain, 'timed': timed}}))
        return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--data', default='../shared/data')
    parser.add_argument('--clips', type=int, default=4)
    parser.add_argument('names', nargs='*', default=['whisper-base'])
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(2)
    clips = sorted(Path(arguments.data, 'librispeech-other').rglob('*.flac'))[:: 100 // arguments.clips][: arguments.clips]
    sys.exit(any([compared(name, clips) for name in arguments.names]))


if __name__ == '__main__':
    main()
