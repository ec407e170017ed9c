"""Has AudioLM make and save adapters of a tiny Qwen2-Audio, as audio_lm_adapters.py and trainParts choose them; Python's peft loads them, and
computes the same.

    python test/reference/audio_lm_adapters_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (peft 0.21.2, transformers 5.24.0, torch 2.13.0): max|a-b| / max|b| of the logits, 1.8e-6 or less in each of 14 cases.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from audio_lm import named
from audio_lm_adapters import CASES, inputs, network, run

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-5
PARTS = {
    'parts encoder': dict(encoder='lora'),
    'parts connector': dict(connector='lora'),
    'parts decoder': dict(decoder='lora'),
    'parts all': dict(encoder='lora', connector='full', decoder='lora'),
    'parts whole decoder': dict(encoder='lora', decoder='full'),
}
WRITE = """
const { AudioLM, getPeftModel, loadSafetensors, manualSeed, noGrad, randn, saveSafetensors } = await import(process.argv[1])
const [folder, given] = process.argv.slice(2)
const camel = (value) => typeof value !== 'object' || value === null || Array.isArray(value) ? value : Object.fromEntries(
  Object.entries(value).map(([key, one]) => [key.replace(/_([a-z])/g, (_, c) => c.toUpperCase()), camel(one)]))
const keys = (object) => Object.fromEntries(Object.entries(object).map(([key, value]) => [Object.keys(camel({ [key]: 0 }))[0], value]))
manualSeed(1)
const { config, cases } = JSON.parse(given)
const { tensors } = await loadSafetensors(`${folder}/base.safetensors`)
const of = (start) => Object.fromEntries(
  Object.entries(tensors).flatMap(([key, value]) => key.startsWith(start) ? [[key.slice(start.length), value]] : []))
for (const [name, { parts, lora }] of Object.entries(cases)) {
  const model = new AudioLM(camel(config)).eval()
  model.loadStateDict({ ...model.stateDict(), ...of('param.') })
  const peft = parts ? model.trainParts(parts, { r: 2, loraAlpha: 4 }) : getPeftModel(model, keys(lora))
  noGrad(() => {
    for (const one of model.parameters()) if (one.requiresGrad) one.add_(randn(one.shape).mul(0.2))
  })
  const { logits } = await model.forward({ ...keys(of('in.')), logitsToKeep: 0 })
  await peft.savePretrained(`${folder}/${name}`)
  await saveSafetensors(`${folder}/${name}/output.safetensors`, { logits })
}
"""


def main():
    warnings.filterwarnings('ignore')
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    cases = {name: dict(lora={'r': 2, 'lora_alpha': 4, **case}) for name, case in CASES.items() if 'nf4' not in case}
    cases |= {name: dict(parts=parts) for name, parts in PARTS.items()}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        base = network({})
        tensors = {f'param.{named(key)}': value.detach().float() for key, value in base.named_parameters()}
        for key, value in inputs().items():
            if key != 'labels':
                name = 'features_mask' if key == 'feature_attention_mask' else key
                tensors[f'in.{name}'] = value.float() if value.is_floating_point() else value
        save_file(tensors, folder / 'base.safetensors')
        given = json.dumps(dict(config=json.loads(base.config.to_json_string()), cases=cases))
        command = ['node', '--no-warnings', '--input-type=module', '-e', WRITE, '--', module.as_uri(), directory, given]
        subprocess.run(command, check=True)
        for name in cases:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                model = PeftModel.from_pretrained(network({}), str(folder / name)).eval()
            missing = [str(one.message)[:200] for one in caught if 'missing adapter keys' in str(one.message)]
            assert not missing, (name, missing)
            with torch.no_grad():
                logits, _ = run(model)
                with model.disable_adapter():
                    plain, _ = run(model)
            ours = load_file(folder / name / 'output.safetensors')['logits'].double()
            real = inputs()['attention_mask'][..., None].bool()
            error = ((torch.where(real, ours, 0) - logits).abs().max() / logits.abs().max()).item()
            moved = ((plain - logits).abs().max() / logits.abs().max()).item()
            print(f'    {name:<20}{error:.1e}  (without the adapter {moved:.1e})')
            assert error <= LIMIT < moved, name


if __name__ == '__main__':
    main()
