"""Has classifiers over RoBERTa and LLaMA save directories that transformers reads, and read what transformers'
save_pretrained writes.

    python test/reference/text_heads_files_check.py [MODULE]     MODULE is the built library; default dist/index.js

Prints (transformers 5.23.0, torch 2.13.0):
    RobertaForSequenceClassification: saved 6.1e-08, read 4.9e-08: ok
    RobertaForTokenClassification: saved 1.3e-07, read 9.9e-08: ok
    LlamaForSequenceClassification: saved 6.3e-08, read 1.1e-07: ok
    MistralForSequenceClassification: saved 1.6e-07, read 9.4e-08: ok
    Qwen2ForSequenceClassification: saved 9.2e-08, read 4.4e-08: ok
The numbers are max|a-b| / max|b| of the logits.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import logging

from speech_heads_files_check import ROOT, camel, error, node
from text_heads import DECODER, ROBERTA, TYPES

NETWORKS = [
    'RobertaForSequenceClassification',
    'RobertaForTokenClassification',
    'LlamaForSequenceClassification',
    'MistralForSequenceClassification',
    'Qwen2ForSequenceClassification',
]
RUN = """
const { [process.argv[2]]: Network, loadSafetensors, saveSafetensors } = await import(process.argv[1])
const [config, made, read] = process.argv.slice(3)
const { tensors } = await loadSafetensors(`${made}/input.safetensors`)
const run = async (model, to) => {
  const { logits } = await model.eval().forward({ inputIds: tensors.input })
  await saveSafetensors(`${to}/output.safetensors`, { output: logits })
}
const model = Network.fromConfig(JSON.parse(config))
await model.save(made)
await run(model, made)
await run(await Network.fromPretrained(read), read)
"""


def check(module, network):
    model_class = getattr(transformers, network)
    prefix = network.split('For')[0]
    size = ROBERTA if prefix == 'Roberta' else dict(DECODER, num_key_value_heads=2)
    config_class = getattr(transformers, f'{prefix}Config')
    with tempfile.TemporaryDirectory() as root:
        made, plain = Path(root) / 'made', Path(root) / 'plain'
        made.mkdir()
        ids = torch.randint(3, size['vocab_size'], (2, 9))
        save_file({'input': ids}, made / 'input.safetensors')
        model = model_class(config_class(**size)).eval()
        model.save_pretrained(plain)
        ours = network if prefix == 'Roberta' else 'DecoderLMForSequenceClassification'
        node(RUN, module, ours, json.dumps(camel({**size, 'model_type': TYPES[prefix]})), made, plain)
        back, info = model_class.from_pretrained(made, output_loading_info=True)
        assert not any(info.values()), info
        assert back.config.num_labels == size['num_labels'] and back.config.architectures == [network]
        with torch.no_grad():
            errors = [error(made, back.eval()(ids).logits), error(plain, model(ids).logits)]
    assert max(errors) < 1e-5, errors
    print('    {}: saved {:.1e}, read {:.1e}: ok'.format(network, *errors))


if __name__ == '__main__':
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    built = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    torch.manual_seed(0)
    for network in NETWORKS:
        check(built, network)
