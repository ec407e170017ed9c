import { statSync } from 'node:fs'
import { join } from 'node:path'
import { DecoderLM } from 'voxtorch'
import { writeEmptyDecoder } from '../test/models/empty-decoder.js'
import { closePair, measureRates, startPair } from './duel.js'
import type { Options } from './options.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { summarise } from './statistics.js'

const llama = (hidden: number, inner: number, layers: number, heads: number, groups = heads) => ({
  architectures: ['LlamaForCausalLM'],
  model_type: 'llama',
  vocab_size: 32000,
  hidden_size: hidden,
  intermediate_size: inner,
  num_hidden_layers: layers,
  num_attention_heads: heads,
  num_key_value_heads: groups,
  rms_norm_eps: 1e-6,
})

/** Networks whose files are zeros, which take no disk: 110M weights, TinyLlama's shape, and LLaMA's 7B (https://arxiv.org/abs/2302.13971). */
const networks = {
  '110M': llama(768, 2048, 12, 12),
  '1.1B': llama(2048, 5632, 22, 32, 4),
  '7B': llama(4096, 11008, 32, 32),
}

interface Case {
  network: keyof typeof networks
  /** Type of the weights in the file; Q8_0 and Q4_0 are GGUF. */
  file: 'F32' | 'BF16' | 'F16' | 'Q8_0' | 'Q4_0'
  label?: string
  options?: Record<string, unknown>
  /** Whether transformers does the same on the CPU. */
  torch: boolean
}

const stored = (network: Case['network']): Case[] =>
  (['F32', 'BF16', 'F16', 'Q8_0', 'Q4_0'] as const).map((file) => ({ network, file, torch: !file.startsWith('Q') }))

const cases: Case[] = [
  ...stored('110M'),
  ...stored('1.1B'),
  { network: '7B', file: 'BF16', torch: true },
  { network: '7B', file: 'BF16', label: 'mapped', options: { mmap: true }, torch: false },
  { network: '7B', file: 'BF16', label: 'as float16', options: { dtype: 'float16' }, torch: true },
  { network: '7B', file: 'BF16', label: 'as int8', options: { quantize: 'int8' }, torch: false },
  { network: '7B', file: 'BF16', label: 'as NF4', options: { quantize: 'nf4' }, torch: false },
]
const peakTarget = 1.1
const secondsPerGigabyte = 0.5
const sides = ['voxtorch', 'torch'] as const

/** Fresh processes load a language model; their peaks are above what they held after import. */
export async function run({ rounds = 1, only = '' }: Options): Promise<Report> {
  const { rates, versions } = await measureRates()
  const rows: Row[] = []
  for (const one of cases) {
    const label = [one.network, one.file, one.label].filter(Boolean).join(' ')
    if (!label.includes(only)) continue
    const folder = scratchFolder()
    try {
      rows.push(...(await measure(label, one, folder, rounds)))
    } finally {
      removeScratch(folder)
    }
  }
  return { question: 'footprint', rounds, rows, rates, versions }
}

/** Write the file, and return its path and size. */
async function write(folder: string, { network, file }: Case): Promise<{ path: string; bytes: number }> {
  const isGguf = file === 'Q8_0' || file === 'Q4_0'
  const bytes = writeEmptyDecoder(folder, networks[network], {
    dtype: isGguf ? 'F32' : file,
    shards: network === '7B' ? 3 : 1,
  })
  if (!isGguf) return { path: folder, bytes }
  const path = join(folder, 'model.gguf')
  const model = await DecoderLM.fromPretrained(folder)
  await model.saveGguf(path, { type: file })
  model.dispose()
  return { path, bytes: statSync(path).size }
}

async function measure(label: string, one: Case, folder: string, rounds: number): Promise<Row[]> {
  const { path, bytes } = await write(folder, one)
  const empty = () => ({ peak: [] as number[], time: [] as number[] })
  const found = { voxtorch: empty(), torch: empty() }
  let weights = bytes
  // Round -1 fills the page cache.
  for (let round = -1; round < rounds; round += 1) {
    for (const side of one.torch ? sides : (['voxtorch'] as const)) {
      // One at a time: two such models may not fit.
      const pair = await startPair('footprint')
      try {
        const reply = await pair[side].ask({ path, options: one.options ?? {} })
        if (round < 0) continue
        if (side === 'voxtorch' && one.options) weights = Number(reply.bytes)
        found[side].peak.push(Number(reply.peak) / 2 ** 20)
        found[side].time.push(Number(reply.milliseconds) / 1000)
      } finally {
        closePair(pair)
      }
    }
  }
  const of = (what: 'peak' | 'time') => ({
    voxtorch: summarise(found.voxtorch[what]),
    ...(one.torch && { torch: summarise(found.torch[what]) }),
  })
  const [peak, time] = [of('peak'), of('time')]
  return [
    {
      label: `${label}, ${Math.round(weights / 2 ** 20)} MiB: peak RSS, at most ${peakTarget} times the weights`,
      unit: 'MiB',
      ...peak,
      target: peakTarget,
      met: peak.voxtorch.median <= (peakTarget * weights) / 2 ** 20,
    },
    {
      label: `${label}: time, at most ${secondsPerGigabyte} s a gigabyte of the file`,
      unit: 's',
      ...time,
      target: secondsPerGigabyte,
      met: time.voxtorch.median <= (bytes / 1e9) * secondsPerGigabyte,
    },
  ]
}
