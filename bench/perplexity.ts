// node --import tsx bench/perplexity.ts --text FILE [--model NAME] [--tokens 8192] [--window 512] [--rows 0] [--only a,b]
//                                       [--file F.gguf ...] [--gguf F.gguf]
//
// What each form of a language model's weights costs in accuracy: the perplexity of a text, cut into windows of which each
// begins anew. --rows n reads n tokens at a time over a cache, as decoding does (int8 multiplies as integers up to 8); 0: a
// window at once. Forms are made of the float32 values of the model's file. --gguf writes these as F32, for llama.cpp to
// make other files of (peers/llama_quantize.py); --file measures such a one, as it is read here.
import { readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import {
  DecoderLM,
  KvCache,
  type LoadNetworkOptions,
  noGrad,
  ops,
  scope,
  type Tensor,
  Tokenizer,
  tensor,
} from '../lib/index.js'

const { values } = parseArgs({
  options: {
    text: { type: 'string' },
    model: { type: 'string', default: 'smollm2-135m-instruct' },
    tokens: { type: 'string', default: '8192' },
    window: { type: 'string', default: '512' },
    rows: { type: 'string', default: '0' },
    only: { type: 'string' },
    file: { type: 'string', multiple: true, default: [] },
    gguf: { type: 'string' },
  },
})
if (values.text === undefined) throw new Error('--text names a file of plain text')

/** From the model's own file, or from one in float32. */
const forms: Record<string, LoadNetworkOptions & { file?: string }> = {
  float32: {},
  bfloat16: { dtype: 'bfloat16' },
  int8: { quantize: { scheme: 'int8', modules: 'model.layers' } },
  'int8 + words Q8_0': { quantize: { scheme: 'int8', modules: 'model.layers', embeddings: true } },
  NF4: { quantize: { scheme: 'nf4', modules: 'model.layers' } },
  Q8_0: { quantize: 'q8_0' },
  Q4_0: { quantize: 'q4_0' },
  'as published': { file: values.model },
}
for (const file of values.file) forms[basename(file)] = { file }

const tokenizer = await Tokenizer.fromPretrained(values.model)
const ids = tokenizer.encode(readFileSync(values.text, 'utf8')).inputIds.slice(0, Number(values.tokens))
const folder = join(tmpdir(), `voxtorch-perplexity-${process.pid}`)
const base = await DecoderLM.fromPretrained(values.model, { quantize: false })
await base.save(folder)
if (values.gguf !== undefined) await base.saveGguf(values.gguf, { tokenizer, type: 'F32' })
base.dispose()

/** The negative log-likelihood of a window, and of how many tokens. */
async function window(model: DecoderLM, part: number[]): Promise<[number, number]> {
  return noGrad(() =>
    scope(async () => {
      const inputIds = tensor([part.map(BigInt)])
      const step = Number(values.rows) || part.length
      const logits: Tensor[] = []
      using cache = new KvCache()
      for (let at = 0; at < part.length; at += step) {
        const some = inputIds.slice(1, at, Math.min(at + step, part.length))
        logits.push((await model.forward({ inputIds: some, cache })).logits as Tensor)
      }
      const all = ops
        .cat(logits, 1)
        .select(0, 0)
        .slice(0, 0, part.length - 1)
        .float()
      const loss = ops.crossEntropyLoss(all, inputIds.select(0, 0).slice(0, 1))
      return [Number(loss.item()) * (part.length - 1), part.length - 1]
    }),
  )
}

try {
  const wanted = values.only?.split(',')
  for (const [name, { file = folder, ...options }] of Object.entries(forms)) {
    if (wanted && !wanted.includes(name)) continue
    const began = performance.now()
    const model = await DecoderLM.fromPretrained(file, options)
    let [sum, count] = [0, 0]
    for (let at = 0; at + 1 < ids.length; at += Number(values.window)) {
      const [lost, told] = await window(model, ids.slice(at, at + Number(values.window)))
      sum += lost
      count += told
    }
    model.dispose()
    const seconds = ((performance.now() - began) / 1000).toFixed(0)
    console.log(`${name.padEnd(18)} ${Math.exp(sum / count).toFixed(3)}   (${count} tokens, ${seconds} s)`)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
