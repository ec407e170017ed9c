"""Has voxtorch make, train and save the adapters of peft_networks.py, loads them with Python's peft, and compares.

    python test/reference/peft_networks_check.py [MODULE]     MODULE exports what dist/index.js does, the default

For each case: the same network and configuration, with random values of what trains, saved by `savePretrained`. peft must
compute the same with it, and what peft saves again must be the same tensors under the same names.

Prints (peft 0.21.2, transformers 5.23.0, torch 2.13.0):
    network     cases  tensors  largest error of the output
    llama          34      343  2e-06
    llama-tied     20      193  6e-07
    whisper        18      276  2e-07
    roberta        21      262  7e-07
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

from peft_networks import CASES, NETWORKS, inputs_of, network, run

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-5
WRITE = """
const { DecoderLM, getPeftModel, loadSafetensors, manualSeed, noGrad, randn, RobertaForMaskedLM, saveSafetensors, Whisper } =
  await import(process.argv[1])
const folder = process.argv[2]
const classes = { llama: DecoderLM, 'llama-tied': DecoderLM, whisper: Whisper, roberta: RobertaForMaskedLM }
const camel = (object) => Object.fromEntries(
  Object.entries(object).map(([key, value]) => [key.replace(/_([a-z])/g, (_, c) => c.toUpperCase()), value]))
manualSeed(1)
for (const { net, name, config, model: options, second } of JSON.parse(process.argv[3])) {
  const model = new classes[net](camel(options)).eval()
  const { tensors } = await loadSafetensors(`${folder}/${net}.safetensors`)
  const inputs = Object.fromEntries(Object.entries(tensors).flatMap(([key, value]) => key.startsWith('in.') ? [[key.slice(3), value]] : []))
  const weights = Object.fromEntries(Object.entries(tensors).filter(([key]) => !key.startsWith('in.')))
  model.loadStateDict({ ...model.stateDict(), ...weights })
  const peft = getPeftModel(model, camel(config))
  const shake = () => noGrad(() => {
    for (const parameter of model.parameters()) {
      if (parameter.requiresGrad) parameter.add_(randn(parameter.shape).mul(0.2))
    }
  })
  shake()
  const answer = async (as) => {
    const { logits } = await model.forward(camel(inputs))
    await saveSafetensors(`${folder}/${net}-${name}/${as}.safetensors`, { logits })
  }
  await peft.savePretrained(`${folder}/${net}-${name}`)
  await answer('output')
  if (!second) continue
  peft.addAdapter('second', camel(second))
  peft.setAdapter('second')
  shake()
  await peft.savePretrained(`${folder}/${net}-${name}`)
  await answer('second')
}
"""


def names_of(tensors):
    """Without what peft writes of a module to save a second and third time."""
    return {key for key in tensors if '.original_module.' not in key and '.modules_to_save.' not in key}


def compare(model, folder, ours, label):
    inputs = inputs_of(label.split('/')[0])
    with torch.no_grad():
        output = run(model, inputs)
    error = ((ours.double() - output).abs().max() / output.abs().max()).item()
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        first, second = (load_file(Path(path) / 'adapter_model.safetensors') for path in (folder, again))
    assert set(first) == names_of(second), (label, set(first) ^ names_of(second))
    assert all(torch.equal(first[key], second[key].float()) for key in first), label
    assert error <= LIMIT, (label, error)
    return len(first), error


def main():
    warnings.filterwarnings('ignore')
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    described = []
    with tempfile.TemporaryDirectory() as directory:
        for net in NETWORKS:
            weights = {key: value.float() for key, value in network(net).named_parameters()}
            inputs = {f'in.{key}': value for key, value in inputs_of(net).items()}
            save_file({**weights, **inputs}, Path(directory) / f'{net}.safetensors')
            options = {key: value for key, value in NETWORKS[net][2].items() if value is not None}
            for name, case in CASES[net].items():
                (Path(directory) / f'{net}-{name}').mkdir()
                config = {'r': 2, 'lora_alpha': 4, **{k: v for k, v in case.items() if k not in ('second', 'joined')}}
                second = {'r': 2, 'lora_alpha': 4, **case['second']} if 'second' in case else None
                described.append(dict(net=net, name=name, config=config, model=options, second=second))
        command = ['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), directory, json.dumps(described)]
        subprocess.run(command, check=True)
        print('    network     cases  tensors  largest error of the output')
        for net in NETWORKS:
            count, tensors, worst = 0, 0, 0.0
            for name, case in CASES[net].items():
                folder = Path(directory) / f'{net}-{name}'
                for part, output in [('', 'output')] + ([('second', 'second')] if 'second' in case else []):
                    ours = load_file(folder / f'{output}.safetensors')['logits']
                    model = PeftModel.from_pretrained(network(net), str(folder / part)).eval()
                    saved, error = compare(model, folder / part, ours, f'{net}/{name}/{output}')
                    count, tensors, worst = count + 1, tensors + saved, max(worst, error)
            print(f'    {net:<12}{count:>5}{tensors:>9}  {worst:.0e}')


if __name__ == '__main__':
    main()
