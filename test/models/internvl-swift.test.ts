import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { internVLPrompt, Tokenizer } from '../../lib/index.js'
import type { InternVLTemplate } from '../../lib/models/internvl/prompt.js'
import { writeProto } from '../../lib/text/sentencepiece/write-proto.js'
import { fixturePath } from '../helpers.js'
import { directory, folder, fromSpec, llamaModel, published } from '../text/helpers.js'

// Ids and labels that ms-swift 2.6.1 itself makes of conversations with pictures, with the published vocabularies.

interface Case {
  name: string
  query: string
  response: string | null
  history?: [string, string][]
  system?: string
  images: number[]
  videos?: string[]
}
type Runs = (number | [value: number, count: number])[]
const file = JSON.parse(readFileSync(fixturePath('models/internvl-prompts.json'), 'utf8')) as {
  cases: Case[]
  results: Record<string, { name: string; template: InternVLTemplate; inputIds: Runs; labels: Runs }[]>
}

const PICTURES = ['<img>', '</img>', '<IMG_CONTEXT>', '<quad>', '</quad>', '<ref>', '</ref>', '<box>', '</box>']
const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
const added = (first: number, names: readonly string[]) =>
  names.map((content, i) => ({ id: first + i, content, ...flags }))

/** Its base is Qwen2's, whose file has other tokens behind the turns' own. */
async function hermes2(): Promise<Tokenizer> {
  const spec = JSON.parse(readFileSync(published.qwen2, 'utf8'))
  const tokens = added(151643, ['<|endoftext|>', '<|im_start|>', '<|im_end|>', ...PICTURES])
  return fromSpec({ ...spec, added_tokens: tokens })
}

/** LLaMA's pieces with Phi-3's tokens, as a folder of the reference's own kind. */
async function phi3(legacy: boolean): Promise<Tokenizer> {
  await llamaModel()
  const names = [
    '<|endoftext|>',
    '<|assistant|>',
    ...[1, 2, 3, 4].map((i) => `<|placeholder${i}|>`),
    '<|system|>',
    '<|end|>',
  ]
  names.push('<|placeholder5|>', '<|placeholder6|>', '<|user|>', ...PICTURES)
  const tokens = Object.fromEntries(added(32000, names).map(({ id, ...token }) => [id, token]))
  const path = directory(`phi3-${legacy}`, {
    'tokenizer.model': readFileSync(join(folder, 'llama/tokenizer.model')),
    'tokenizer_config.json': {
      tokenizer_class: 'LlamaTokenizer',
      legacy,
      add_bos_token: true,
      bos_token: '<s>',
      eos_token: '</s>',
      unk_token: '<unk>',
      added_tokens_decoder: tokens,
    },
  })
  return Tokenizer.fromPretrained(path)
}

async function internlm2(): Promise<Tokenizer> {
  const spec = JSON.parse(readFileSync(fixturePath('models/internvl-internlm2.json'), 'utf8'))
  return Tokenizer.fromPretrained(
    directory('internlm2', {
      'tokenizer.json': spec,
      'tokenizer_config.json': { bos_token: '<s>', eos_token: '<|im_end|>' },
    }),
  )
}

/**
 * The same vocabulary as its published files have it: a SentencePiece model, in which other pieces stand at the ids of the turns'
 * tokens, and a configuration that leaves `add_bos_token` to the class.
 */
async function internlm2Model(): Promise<Tokenizer> {
  const { model } = JSON.parse(readFileSync(fixturePath('models/internvl-internlm2.json'), 'utf8')) as {
    model: { vocab: Record<string, number>; merges: string[] }
  }
  const [NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE] = [1, 2, 3, 4, 6]
  const size = 92544
  const pieces = Array.from({ length: size }, (_, id) => `[UNUSED_TOKEN_${id}]`)
  const types = new Array<number>(size).fill(NORMAL)
  const scores = new Array<number>(size).fill(-1e6)
  for (const [piece, id] of Object.entries(model.vocab)) {
    if (id >= 92538) continue
    pieces[id] = piece
    types[id] = /^<0x/.test(piece) ? BYTE : NORMAL
  }
  for (const [id, name] of ['<unk>', '<s>', '</s>'].entries()) {
    pieces[id] = name
    types[id] = id === 0 ? UNKNOWN : CONTROL
  }
  for (let id = 92538; id < size; id++) types[id] = USER_DEFINED
  for (const [rank, merge] of [...model.merges.entries()].reverse()) {
    scores[model.vocab[merge.replace(' ', '')] as number] = -rank
  }
  const proto = { pieces, types, scores, algorithm: 'bpe', byteFallback: true, addDummyPrefix: false } as const
  const bytes = writeProto({ ...proto, removeExtraWhitespaces: false, unkId: 0, bosId: 1, eosId: 2, padId: -1 })
  const turns = ['<|plugin|>', '<|interpreter|>', '<|action_end|>', '<|action_start|>', '<|im_end|>', '<|im_start|>']
  const tokens = Object.fromEntries(added(92538, [...turns, ...PICTURES]).map(({ id, ...token }) => [id, token]))
  return Tokenizer.fromPretrained(
    directory('internlm2-model', {
      'tokenizer.model': bytes,
      'tokenizer_config.json': {
        ...{ tokenizer_class: 'InternLM2Tokenizer', added_tokens_decoder: tokens },
        ...{ bos_token: '<s>', eos_token: '</s>', unk_token: '<unk>', pad_token: '</s>' },
      },
    }),
  )
}

const tokenizers: Record<string, () => Promise<Tokenizer>> = {
  hermes2,
  internlm2,
  'internlm2 as published': internlm2Model,
  phi3: () => phi3(false),
  'phi3-legacy': () => phi3(true),
}
const whole = (runs: Runs): number[] =>
  runs.flatMap((run) => (Array.isArray(run) ? new Array<number>(run[1]).fill(run[0]) : [run]))

describe.each(Object.keys(tokenizers))('%s', (family) => {
  it('has the ids and labels of ms-swift', async () => {
    const tokenizer = await (tokenizers[family] as () => Promise<Tokenizer>)()
    const results = file.results[family.replace(/ .*/, '')] as (typeof file.results)[string]
    expect(results.length).toBe(file.cases.length)
    for (const [i, one] of file.cases.entries()) {
      const { query, response, history = [], images, videos = [] } = one
      const { template, inputIds, labels } = results[i] as (typeof results)[number]
      const made = internVLPrompt(
        tokenizer,
        {
          turns: [...history, [query, response] as const],
          images,
          videos: videos.map(() => 8),
          ...(one.system !== undefined && { system: one.system === '' ? null : one.system }),
        },
        { template },
      )
      expect(made.inputIds, one.name).toEqual(whole(inputIds))
      if (response === null) expect(labels, one.name).toEqual([])
      else expect(made.labels, one.name).toEqual(whole(labels))
    }
  })
})
