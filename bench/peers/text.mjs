import { readFileSync } from 'node:fs'
import { Tokenizer } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const { tokenizers, texts } = JSON.parse(readFileSync(process.env.VOXTORCH_BENCH_TEXT, 'utf8'))
const whole = texts.join('\n')

const cases = { ...rates }
for (const [name, path] of tokenizers) {
  const tokenizer = await Tokenizer.fromFile(path)
  cases[`${name}Each`] = (n) => {
    for (let i = 0; i < n; i++) for (const text of texts) tokenizer.encode(text).inputIds
  }
  cases[`${name}Batch`] = (n) => {
    for (let i = 0; i < n; i++) tokenizer.encodeBatch(texts).inputIds
  }
  cases[`${name}Whole`] = (n) => {
    for (let i = 0; i < n; i++) tokenizer.encode(whole).inputIds
  }
}

await serve(timedBlocks(cases))
