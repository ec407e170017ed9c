"""Has Moonshine save a folder that transformers reads, and read what transformers' save_pretrained writes; counts the
parameters of the published sizes.

    python test/reference/moonshine_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.24.0, torch 2.13.0):
    tiny: 27,092,736 parameters
    base: 61,513,920 parameters
    Moonshine: read, logits 4.5e-07; saved, logits 4.5e-07, the same tokens: ok
The numbers are max|a-b| / max|b| of the logits.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoFeatureExtractor, MoonshineConfig, MoonshineForConditionalGeneration, Wav2Vec2FeatureExtractor, logging

from moonshine import SIZE, fill

ROOT = Path(__file__).resolve().parents[2]
# Loads a folder, writes its logits and tokens of a clip there, and saves it to another folder.
RUN = """
const models = await import(process.argv[1])
const { loadSafetensors, saveSafetensors } = models
const [from, to] = process.argv.slice(2)
const { tensors } = await loadSafetensors(`${from}/clip.safetensors`)
const model = await models.Moonshine.fromPretrained(from)
const { logits } = await model.forward({ inputValues: tensors.clip, decoderInputIds: tensors.ids })
await saveSafetensors(`${from}/output.safetensors`, { logits })
const { tokens } = await model.generate({ inputValues: tensors.clip })
console.log(JSON.stringify({ tokens: tokens[0], normalizes: model.normalizesAudio }))
await model.save(to)
"""


def error(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def check(module):
    model = MoonshineForConditionalGeneration(MoonshineConfig(**{**SIZE, 'rope_theta': 500.0}))
    fill(model, 'files')
    model.eval()
    model.generation_config.max_length = 15
    with tempfile.TemporaryDirectory() as root:
        theirs, ours = Path(root) / 'theirs', Path(root) / 'ours'
        model.save_pretrained(theirs)
        Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(theirs)
        clip, ids = torch.randn(1, 8000) * 0.1, torch.tensor([[1, 5, 6, 7]])
        save_file(dict(clip=clip, ids=ids), theirs / 'clip.safetensors')
        command = ['node', '--input-type=module', '-e', RUN, '--', module.as_uri()]
        out = subprocess.run([*command, theirs, ours], check=True, stdout=subprocess.PIPE, text=True)
        told = json.loads(out.stdout)
        assert told['normalizes'] is False, told
        found = load_file(theirs / 'output.safetensors')['logits']
        back, info = MoonshineForConditionalGeneration.from_pretrained(ours, output_loading_info=True)
        assert not any(info.values()), info
        assert back.config.rope_parameters == model.config.rope_parameters, back.config.rope_parameters
        extractor = AutoFeatureExtractor.from_pretrained(ours)
        assert isinstance(extractor, Wav2Vec2FeatureExtractor) and not extractor.do_normalize, extractor
        errors = []
        for reference in (model, back.eval()):
            with torch.no_grad():
                errors.append(error(found, reference(input_values=clip, decoder_input_ids=ids).logits))
            tokens = reference.generate(input_values=clip, do_sample=False)[0, 1:].tolist()
            assert tokens == told['tokens'], (tokens, told)
    assert max(errors) < 1e-5, errors
    print('    Moonshine: read, logits {:.1e}; saved, logits {:.1e}, the same tokens: ok'.format(*errors))


def sizes():
    base = dict(hidden_size=416, intermediate_size=1664, encoder_num_hidden_layers=8, decoder_num_hidden_layers=8)
    for name, options in [('tiny', {}), ('base', dict(**base, partial_rotary_factor=0.62))]:
        with torch.device('meta'):
            model = MoonshineForConditionalGeneration(MoonshineConfig(**options))
        print(f'    {name}: {sum(p.numel() for p in model.parameters()):,} parameters')


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    sizes()
    check(built)
