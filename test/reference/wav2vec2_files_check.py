"""Has Wav2Vec2 and WavLM save directories that transformers reads, and read what transformers' save_pretrained writes.

    python test/reference/wav2vec2_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.23.0, torch 2.13.0):
    wav2vec2 base: saved 3.0e-07, trunk 2.4e-07, with a head 2.4e-07, old names 2.4e-07: ok
    wav2vec2 stable: saved 3.0e-07, trunk 2.4e-07, with a head 2.4e-07, old names 2.4e-07: ok
    wavlm base: saved 3.0e-07, trunk 2.4e-07, with a head 2.4e-07, old names 2.4e-07: ok
    wavlm stable: saved 3.0e-07, trunk 2.4e-07, with a head 2.4e-07, old names 2.4e-07: ok
The numbers are max|a-b| / max|b| of the last hidden state.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMForCTC,
    WavLMModel,
    logging,
)

from wav2vec2 import SIZE, STABLE

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    'wav2vec2': ('Wav2Vec2', Wav2Vec2Config, Wav2Vec2Model, Wav2Vec2ForPreTraining),
    'wavlm': ('WavLM', WavLMConfig, WavLMModel, WavLMForCTC),
}
# Loads each directory after the first and writes its output there; makes and saves the first.
RUN = """
const { [process.argv[2]]: Network, loadSafetensors, saveSafetensors } = await import(process.argv[1])
const [config, made, ...read] = process.argv.slice(3)
const { tensors } = await loadSafetensors(`${made}/input.safetensors`)
const run = async (model, to) => {
  const { lastHiddenState: output } = await model.eval().forward({ inputValues: tensors.input })
  await saveSafetensors(`${to}/output.safetensors`, { output })
}
const model = Network.fromConfig(JSON.parse(config))
await model.save(made)
await run(model, made)
for (const directory of read) await run(await Network.fromPretrained(directory), directory)
"""


def old_names(trunk, directory):
    trunk.save_pretrained(directory)
    path = directory / 'model.safetensors'
    replace = {'parametrizations.weight.original0': 'weight_g', 'parametrizations.weight.original1': 'weight_v'}
    state = load_file(path)
    for new, old in replace.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    assert any(key.endswith('weight_g') for key in state)
    save_file(state, path, {'format': 'pt'})


def check(module, kind, name, options):
    network, config_class, model_class, head_class = KINDS[kind]
    with tempfile.TemporaryDirectory() as root:
        made, trunk, head, old = folders = [Path(root) / key for key in ('made', 'trunk', 'head', 'old')]
        made.mkdir()
        values = torch.randn(2, 320)
        save_file({'input': values}, made / 'input.safetensors')
        config = config_class(**{**SIZE, 'proj_codevector_dim': 8, 'codevector_dim': 8, **options})
        model = model_class(config).eval()
        topped = head_class(config).eval()
        model.save_pretrained(trunk)
        topped.save_pretrained(head)
        old_names(model, old)
        camel = {''.join(w if i == 0 else w.title() for i, w in enumerate(k.split('_'))): v for k, v in {**SIZE, **options}.items()}
        subprocess.run(
            ['node', '--input-type=module', '-e', RUN, '--', module.as_uri(), network, json.dumps(camel), *folders],
            check=True,
        )
        back, info = model_class.from_pretrained(made, output_loading_info=True)
        assert not any(info.values()), info
        wanted = [back.eval(), model, getattr(topped, topped.base_model_prefix), model]
        errors = []
        with torch.no_grad():
            for directory, reference in zip(folders, wanted):
                output = load_file(directory / 'output.safetensors')['output']
                expected = reference(values).last_hidden_state
                errors.append(((output - expected).abs().max() / expected.abs().max()).item())
    saved, plain, topped, renamed = errors
    assert max(errors) < 1e-5, errors
    print(f'{kind} {name}: saved {saved:.1e}, trunk {plain:.1e}, with a head {topped:.1e}, old names {renamed:.1e}: ok')


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    for kind in KINDS:
        check(built, kind, 'base', {})
        check(built, kind, 'stable', STABLE)
