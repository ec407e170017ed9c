"""Has DecoderLM save directories that transformers reads, and read what transformers' save_pretrained writes.

    python test/reference/decoder_lm_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.23.0, torch 2.13.0):
    llama: saved 3.9e-07, one file 3.3e-07, shards 3.3e-07, cached 2.2e-07: ok
    llama-biases: saved 3.7e-07, one file 5.5e-07, shards 5.5e-07, cached 2.6e-07: ok
    llama3: saved 2.2e-07, one file 4.7e-07, shards 4.7e-07, cached 6.8e-07: ok
    yarn: saved 3.1e-07, one file 5.2e-07, shards 5.2e-07, cached 5.6e-07: ok
    mistral: saved 5.3e-07, one file 6.0e-07, shards 6.0e-07, cached 2.0e-07: ok
    qwen2-tied: saved 6.4e-07, one file 1.9e-07, shards 1.9e-07, cached 2.6e-07: ok
    qwen2-window: saved 3.3e-07, one file 3.9e-07, shards 3.9e-07, cached 6.0e-07: ok
The numbers are max|a-b| / max|b| of the logits: of a network that voxtorch made and transformers read, of one file and
of shards that transformers wrote, and of a padded batch's last token after a prefill and cached steps in both.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, logging

from decoder_lm import CASES, SIZE, CLASSES

ROOT = Path(__file__).resolve().parents[2]
RUN = """
const { DecoderLM, KvCache, loadSafetensors, manualSeed, saveSafetensors } = await import(process.argv[1])
const [config, made, ...read] = process.argv.slice(2)
const { tensors } = await loadSafetensors(`${made}/input.safetensors`)
const run = async (model, to) => {
  const { logits } = await model.eval().forward({ inputIds: tensors.ids })
  const cache = new KvCache()
  let step
  for (let at = 6; at <= 8; at += 1) {
    const from = at === 6 ? 0 : at - 1
    const inputIds = tensors.ids.narrow(1, from, at - from)
    step = await model.forward({ inputIds, attentionMask: tensors.mask.narrow(1, 0, at), cache, logitsToKeep: 1 })
  }
  await saveSafetensors(`${to}/output.safetensors`, { logits, step: step.logits })
}
manualSeed(0)
const model = DecoderLM.fromConfig(JSON.parse(config))
await model.save(made)
await run(model, made)
for (const directory of read) await run(await DecoderLM.fromPretrained(directory), directory)
"""


def camel(value):
    if not isinstance(value, dict):
        return value
    return {''.join(w if i == 0 else w.title() for i, w in enumerate(k.split('_'))): camel(v) for k, v in value.items()}


def steps(model, ids, mask):
    """A prefill of six tokens and two steps, as `generate` makes them."""
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    past = None
    for end in (6, 7, 8):
        start = 0 if end == 6 else end - 1
        outputs = model(
            input_ids=ids[:, start:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, start:end],
            past_key_values=past,
            use_cache=True,
        )
        past = outputs.past_key_values
    return outputs.logits[:, -1:]


def check(module, name, type, **options):
    with tempfile.TemporaryDirectory() as root:
        made, one, shards = folders = [Path(root) / key for key in ('made', 'one', 'shards')]
        made.mkdir()
        ids = torch.randint(1, SIZE['vocab_size'], (3, 8))
        mask = torch.ones_like(ids)
        mask[1, :3] = 0
        mask[2, :5] = 0
        save_file({'ids': ids, 'mask': mask}, made / 'input.safetensors')
        config_class, model_class = CLASSES[type]
        model = model_class(config_class(**{**SIZE, **options, 'initializer_range': 0.3})).eval()
        model.save_pretrained(one)
        model.save_pretrained(shards, max_shard_size='1KB')
        config = camel({'model_type': type, 'initializer_range': 0.3, **SIZE, **options})
        subprocess.run(
            ['node', '--input-type=module', '-e', RUN, '--', module.as_uri(), json.dumps(config), *folders], check=True
        )
        back, info = AutoModelForCausalLM.from_pretrained(made, output_loading_info=True)
        assert not any(info.values()), info
        assert isinstance(back, model_class)
        errors, cached = [], []
        with torch.no_grad():
            for directory, reference in zip(folders, [back.eval(), model, model]):
                output = load_file(directory / 'output.safetensors')
                for key, expected, into in [
                    ('logits', reference(ids).logits, errors),
                    ('step', steps(reference, ids, mask), cached),
                ]:
                    into.append(((output[key] - expected).abs().max() / expected.abs().max()).item())
    assert max(errors + cached) < 1e-5, (errors, cached)
    saved, whole, sharded = errors
    print(f'{name}: saved {saved:.1e}, one file {whole:.1e}, shards {sharded:.1e}, cached {max(cached):.1e}: ok')


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    for case in CASES:
        if case['name'] in ('llama', 'llama-biases', 'llama3', 'yarn', 'mistral', 'qwen2-tied', 'qwen2-window'):
            check(built, **{key: value for key, value in case.items() if key not in ('brief', 'pads', 'embeds')})
