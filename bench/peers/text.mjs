import { readFileSync } from 'node:fs'
import { ops, randn, Tokenizer } from 'voxtorch'
import { serve, timedBlocks } from './serve.mjs'

const { tokenizers, texts } = JSON.parse(readFileSync(process.env.VOXTORCH_BENCH_TEXT, 'utf8'))
const whole = texts.join('\n')
const wide = randn([1024, 1024])
const tall = randn([1024, 1024])
const matrix = randn([4096, 4096])
const vector = randn([4096])

const cases = {
  gemm: async (n) => {
    for (let i = 0; i < n; i++) (await ops.async.matmul(wide, tall)).dispose()
  },
  gemv: async (n) => {
    for (let i = 0; i < n; i++) (await ops.async.matmul(matrix, vector)).dispose()
  },
}
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
