"""
What transformers makes of folders that voxtorch saved from GGUF files whose tokenizers put a first or a last token around a text:
test/fixtures/text/gguf-saved.json, for each the post-processor of the saved tokenizer.json and transformers' ids.

    python test/reference/text_gguf_saved.py [--check] [MODULE]     MODULE exports Tokenizer and saveGguf; default dist/index.js
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

from text_common import FIXTURES, ROOT

TOKENS = [*(chr(33 + i) for i in range(94)), 'Ġ', 'Ċ', 'he', 'Ġhe', '<|end|>', '<think>', '12', '<s>']
CASES = [
    {'pre': pre, 'flags': {f'tokenizer.ggml.add_{name}_token': value for name, value in (('bos', bos), ('eos', eos)) if value is not None}}
    for pre in ('llama-bpe', 'gpt-2')
    for bos, eos in ((True, False), (True, True), (False, True), (None, None), (False, None))
]

SAVE = """
const { Tokenizer, saveGguf } = await import(process.argv[1])
const { readFileSync } = await import('node:fs')
const { folder, tokens, cases } = JSON.parse(readFileSync(process.argv[2]))
const types = Int32Array.from(tokens, (token) => token === '<|end|>' || token === '<s>' ? 3 : token === '<think>' ? 4 : 1)
for (const [i, { pre, flags }] of cases.entries()) {
  const metadata = {
    'tokenizer.ggml.model': 'gpt2', 'tokenizer.ggml.pre': pre, 'tokenizer.ggml.tokens': tokens, 'tokenizer.ggml.token_type': types,
    'tokenizer.ggml.merges': ['h e', 'Ġ he', '1 2'], 'tokenizer.ggml.bos_token_id': tokens.indexOf('<s>'),
    'tokenizer.ggml.eos_token_id': tokens.indexOf('<|end|>'), ...flags,
  }
  await saveGguf(`${folder}/${i}.gguf`, {}, { metadata })
  const tokenizer = await Tokenizer.fromFile(`${folder}/${i}.gguf`)
  tokenizer.saveTo(`${folder}/${i}`)
}
"""


def main():
    arguments = [one for one in sys.argv[1:] if one != '--check']
    module = Path(arguments[0]).resolve() if arguments else ROOT / 'dist/index.js'
    with tempfile.TemporaryDirectory() as folder:
        request = Path(folder) / 'request.json'
        request.write_text(json.dumps({'folder': folder, 'tokens': TOKENS, 'cases': CASES}))
        subprocess.run(['node', '--import', 'tsx', '--input-type=module', '-e', SAVE, '--', module.as_uri(), str(request)], check=True, cwd=ROOT)
        for i, case in enumerate(CASES):
            tokenizer = AutoTokenizer.from_pretrained(f'{folder}/{i}')
            case['post_processor'] = json.loads((Path(folder) / f'{i}/tokenizer.json').read_text())['post_processor']
            case['single'] = tokenizer('he 12he')['input_ids']
            case['pair'] = tokenizer('he', '12')['input_ids']
    path = FIXTURES / 'gguf-saved.json'
    text = json.dumps({'tokens': TOKENS, 'cases': CASES}, indent=1, ensure_ascii=False) + '\n'
    if '--check' in sys.argv:
        sys.exit(0 if path.read_text() == text else f'{path} differs')
    path.write_text(text)


main()
