"""Has voxtorch make and save adapters, loads them with Python's peft and compares the outputs.

    python test/reference/peft_check.py [MODULE]     MODULE exports what dist/index.js does, the default

For each case of peft_lora.py: the same network and kind of adapter, with random values, saved by `savePretrained`. What
peft saves again must be the same tensors under the same names.

Prints (peft 0.21.2, transformers 5.23.0, torch 2.13.0):
    plain: 4 tensors, output within 1e-07, the adapter changes it by 5e-01
    rslora: 4 tensors, output within 8e-08, the adapter changes it by 8e-01
    dora: 12 tensors, output within 1e-07, the adapter changes it by 6e-01
    embedding: 2 tensors, output within 0e+00, the adapter changes it by 1e+00
    conv: 3 tensors, output within 0e+00, the adapter changes it by 4e-01
    whole: 10 tensors, output within 7e-08, the adapter changes it by 9e-01
    roberta: 8 tensors, output within 2e-07, the adapter changes it by 8e-01
    roberta-every: 42 tensors, output within 6e-07, the adapter changes it by 1e+00
    roberta-layer: 8 tensors, output within 4e-07, the adapter changes it by 8e-01
    all-linear: 4 tensors, output within 5e-08, the adapter changes it by 4e-01
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

from common import randint
from peft_lora import CASES, ROBERTA, Small, fill, loss_of

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1e-5
WRITE = """
const { Conv1d, Embedding, functional, getPeftModel, Linear, loadSafetensors, manualSeed, Module, noGrad, randn, Roberta,
  saveSafetensors } = await import(process.argv[1])
const folder = process.argv[2]
manualSeed(1)
class Small extends Module {
  embed = new Embedding(20, 12, { paddingIdx: 0 })
  conv = new Conv1d(12, 10, 3, { stride: 2, padding: 1 })
  hidden = new Linear(10, 16)
  head = new Linear(16, 4)
  forward(ids) {
    const x = this.conv.forward(this.embed.forward(ids).transpose(1, 2)).relu()
    return this.head.forward(functional.gelu(this.hidden.forward(x.transpose(1, 2)))).mean([1])
  }
}
const camel = (object) => Object.fromEntries(
  Object.entries(object).map(([key, value]) => [key.replace(/_([a-z])/g, (_, c) => c.toUpperCase()), value]))
for (const { name, roberta, config } of JSON.parse(process.argv[3])) {
  const model = roberta ? new Roberta(camel(roberta)) : new Small()
  const { tensors } = await loadSafetensors(`${folder}/${name}/base.safetensors`)
  const { ids, ...weights } = tensors
  model.loadStateDict(weights)
  const peft = getPeftModel(model, camel(config))
  noGrad(() => {
    for (const parameter of model.parameters()) {
      if (parameter.requiresGrad) parameter.add_(randn(parameter.shape).mul(0.2))
    }
  })
  await peft.savePretrained(`${folder}/${name}`)
  const result = await model.eval().forward(roberta ? { inputIds: ids } : ids)
  await saveSafetensors(`${folder}/${name}/output.safetensors`, { output: roberta ? result.poolerOutput : result })
}
"""


def main():
    warnings.filterwarnings('ignore')
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    ids = randint('peft_check/ids', 2, 20, 3, 7)
    cases = {name: dict(case) for name, case in CASES.items()}
    # Adapters of every linear layer, by peft's word for them.
    cases['all-linear'] = dict(model=Small, r=3, lora_alpha=6, target_modules='all-linear', init_lora_weights='gaussian')
    described = []
    with tempfile.TemporaryDirectory() as directory:
        for name, case in cases.items():
            model = case['model']()
            fill(model, name)
            weights = {key: value.clone() for key, value in model.state_dict().items() if value.is_floating_point()}
            (Path(directory) / name).mkdir()
            save_file({**weights, 'ids': ids}, Path(directory) / name / 'base.safetensors')
            config = {key: value for key, value in case.items() if key != 'model'}
            described.append(dict(name=name, roberta=None if case['model'] is Small else ROBERTA, config=config))
        command = ['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), directory, json.dumps(described)]
        subprocess.run(command, check=True)
        for name, case in cases.items():
            folder = Path(directory) / name
            model = case['model']()
            fill(model, name)
            with torch.no_grad():
                plain, _ = loss_of(model.eval(), ids, torch.zeros(()))
                adapted = PeftModel.from_pretrained(model, str(folder)).eval()
                output, _ = loss_of(adapted, ids, torch.zeros(()))
            ours = load_file(folder / 'output.safetensors')['output']
            error = ((ours - output).abs().max() / output.abs().max()).item()
            changed = ((plain - output).abs().max() / output.abs().max()).item()
            # What peft saves again is what voxtorch wrote.
            adapted.save_pretrained(folder / 'again')
            first, second = (load_file(path / 'adapter_model.safetensors') for path in (folder, folder / 'again'))
            names = {key for key in second if '.original_module.' not in key and '.modules_to_save.' not in key}
            assert first.keys() == names, (name, first.keys() ^ names)
            assert all(torch.equal(first[key], second[key]) for key in names), name
            assert error <= LIMIT < changed, (name, error, changed)
            print(f'{name}: {len(first)} tensors, output within {error:.0e}, the adapter changes it by {changed:.0e}')


if __name__ == '__main__':
    main()
