"""Has voxtorch save published Whisper weights by name, opens the folder with transformers, and compares what both write about one
clip with default settings: the spectrogram, the ids of `generate` with and without timestamps, and the text.

    python test/reference/whisper_saved_check.py CLIP [NAME ...]     NAME: weights in the user's cache; default whisper-base

The number is max|a-b| / max|b| of the spectrograms that voxtorch and the saved preprocessor_config.json make of the clip.
"""

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
const { v, clip, name, folder } = { v: await import(process.argv[1]), clip: process.argv[2], name: process.argv[3], folder: process.argv[4] }
const model = await v.Whisper.fromPretrained(name, { offline: true })
await model.save(folder)
const samples = await v.readClip(clip)
const inputFeatures = (await v.logMelSpectrogram(samples, { nMels: model.config.numMelBins, length: 480000 })).narrow(1, 0, 3000).unsqueeze(0)
await v.saveSafetensors(`${folder}/clip.safetensors`, { samples, inputFeatures })
const ids = async (options) => (await model.transcribe(samples, options)).segments.flatMap(({ tokens }) => tokens)
const { text, language } = await model.transcribe(samples)
const { tokens } = await model.generate({ inputFeatures })
console.log(JSON.stringify({
  text, language, generated: tokens[0].map(Number),
  plain: await ids({ timestamps: false }), timed: await ids({ timestamps: true }),
}))
"""


def main():
    clip, *names = sys.argv[1:]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failed = False
    for name in names or ["whisper-base"]:
        with tempfile.TemporaryDirectory() as folder:
            run = ["node", "--input-type=module", "-e", RUN, "--", (ROOT / "dist/index.js").as_uri(), str(Path(clip).resolve()), name, folder]
            here = json.loads(subprocess.run(run, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            read = load_file(f"{folder}/clip.safetensors")
            model, info = transformers.WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
            lacking = {key: value for key, value in info.items() if value}
            assert not lacking, lacking
            extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            features = extractor(read["samples"].numpy(), sampling_rate=16000, return_tensors="pt").input_features
            error = ((read["inputFeatures"] - features).abs().max() / features.abs().max()).item()
            end = model.generation_config.eos_token_id
            first = model.generation_config.no_timestamps_token_id + 1
            with torch.no_grad():
                plain = model.generate(features)[0].tolist()
                timed = model.generate(features, return_timestamps=True)[0].tolist()
            text_of = lambda ids: [id for id in ids if id < end]
            spoken_of = lambda ids: [id for id in ids if id < end or id >= first]
            equal = {
                "generate": text_of(here["generated"]) == text_of(plain),
                "transcribe, timestamps: false": here["plain"] == text_of(plain),
                "transcribe": spoken_of(here["timed"]) == spoken_of(timed),
                "text": here["text"] == tokenizer.decode(text_of(timed), skip_special_tokens=True).strip(),
            }
            failed |= not all(equal.values()) or error > 1e-5
            print(f"    {name:16} {Path(clip).name}  spectrogram {error:.0e}  " + "  ".join(f"{key} {'=' if same else 'DIFFERS'}" for key, same in equal.items()))
            if not all(equal.values()):
                print(json.dumps({"here": here, "transformers": {"plain": plain, "timed": timed}}))
    sys.exit(failed)


if __name__ == "__main__":
    main()
