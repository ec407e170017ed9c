"""Has Mimi save a folder that transformers reads, and read what transformers' save_pretrained writes; counts the parameters of
the published size.

    python test/reference/mimi_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.24.0, torch 2.13.0):
    mimi: 79,308,609 parameters, 16,842,784 numbers of codebooks
    Mimi: read, latents 0.0e+00, audio 0.0e+00; saved, latents 0.0e+00, audio 0.0e+00, the same codes: ok
The numbers are max|a-b| / max|b|.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, EncodecFeatureExtractor, MimiConfig, MimiModel, logging

from mimi import SIZE, fill

ROOT = Path(__file__).resolve().parents[2]
# Loads a folder, writes what it makes of a clip there, and saves it to another folder.
RUN = """
const models = await import(process.argv[1])
const { loadSafetensors, saveSafetensors } = models
const [from, to] = process.argv.slice(2)
const { tensors } = await loadSafetensors(`${from}/clip.safetensors`)
const model = await models.Mimi.fromPretrained(from)
const { audioCodes, latents } = await model.encode({ inputValues: tensors.clip })
const { audioValues } = await model.decode({ audioCodes })
await saveSafetensors(`${from}/output.safetensors`, { codes: audioCodes, latents, audio: audioValues })
await model.save(to)
"""


def error(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def check(module):
    model = MimiModel(MimiConfig(**{**SIZE, 'rope_theta': 500.0}))
    fill(model, 'files')
    model.eval()
    with tempfile.TemporaryDirectory() as root:
        theirs, ours = Path(root) / 'theirs', Path(root) / 'ours'
        model.save_pretrained(theirs)
        EncodecFeatureExtractor(sampling_rate=1200).save_pretrained(theirs)
        clip = torch.randn(2, 1, 250)
        save_file(dict(clip=clip), theirs / 'clip.safetensors')
        subprocess.run(['node', '--input-type=module', '-e', RUN, '--', module.as_uri(), theirs, ours], check=True)
        found = load_file(theirs / 'output.safetensors')
        back, info = MimiModel.from_pretrained(ours, output_loading_info=True)
        assert not any(info.values()), info
        assert back.config.rope_parameters == model.config.rope_parameters, back.config.rope_parameters
        assert (back.config.frame_rate, back.config.frame_size) == (model.config.frame_rate, model.config.frame_size)
        extractor = AutoFeatureExtractor.from_pretrained(ours)
        assert isinstance(extractor, EncodecFeatureExtractor) and extractor.sampling_rate == 1200, extractor
        errors = []
        for reference in (model, back.eval()):
            with torch.no_grad():
                codes = reference.encode(clip).audio_codes
                assert torch.equal(codes, found['codes'])
                errors.append(error(found['latents'], reference.encoder(clip).latents))
                errors.append(error(found['audio'], reference.decode(codes).audio_values))
    assert max(errors) < 1e-5, errors
    line = '    Mimi: read, latents {:.1e}, audio {:.1e}; saved, latents {:.1e}, audio {:.1e}, the same codes: ok'
    print(line.format(*errors))


def sizes():
    with torch.device('meta'):
        model = MimiModel(MimiConfig())
    names = model.state_dict()
    parameters = sum(p.numel() for p in model.parameters())
    books = sum(value.numel() for key, value in names.items() if 'codebook' in key)
    print(f'    mimi: {parameters:,} parameters, {books:,} numbers of codebooks')


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    sizes()
    check(built)
