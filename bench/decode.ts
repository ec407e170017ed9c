import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { againstLlamaCpp, againstNative } from './gguf.js'
import { isAsked, type Options } from './options.js'
import { BenchError, peerModules, type Versions } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/** Token restriction as in USDM's passes, to units or to text. */
export const BANNED: Case = {
  name: 'banned',
  label: 'LLaMA 110M, 1 row, 10,000 tokens suppressed, float32',
  target: 0.65,
}

/** LLaMA of 110M parameters with random weights: 32 greedy tokens after a prompt of 32; time per 32 tokens. */
const cases: Case[] = [
  { name: 'single', label: 'LLaMA 110M, 1 row, float32', target: 0.65 },
  { name: 'half', label: 'LLaMA 110M, 1 row, bfloat16', target: 0.65 },
  { name: 'int8', label: 'LLaMA 110M, 1 row, int8 weights against float32', target: 0.35 },
  { name: 'nf4', label: 'LLaMA 110M, 1 row, NF4 weights against float32' },
  { name: 'batch', label: 'LLaMA 110M, 8 rows padded on the left, float32', target: 0.6 },
  { name: 'beams', label: 'LLaMA 110M, 4 beams, float32' },
  BANNED,
  { name: 'sampled', label: 'LLaMA 110M, 1 row, top-k, top-p, repetition penalty, float32' },
]

export async function run({
  rounds = 5,
  milliseconds = 1,
  only = '',
  against = '',
  tokens = 128,
}: Options): Promise<Report> {
  const asked = (peer: string) => peer.includes(against)
  const rows: Row[] = []
  const versions: Versions = {}
  const take = (made: { rows: Row[]; versions: Versions }) => {
    rows.push(...made.rows)
    Object.assign(versions, made.versions)
  }
  if (asked('transformers')) {
    const chosen = cases.filter((one) => isAsked(only, one))
    if (chosen.length > 0) take(await againstTransformers(chosen, rounds, milliseconds))
  }
  if (asked('llama.cpp')) {
    const program = process.env.VOXTORCH_BENCH_LLAMA
    if (program) {
      const folder = scratchFolder()
      try {
        take(await againstNative(program, folder, { rounds, only, tokens }))
      } finally {
        removeScratch(folder)
      }
    } else {
      console.log(
        'not compared with llama.cpp: bench/peers/native.sh DIR builds it; set VOXTORCH_BENCH_LLAMA to what it prints',
      )
    }
  }
  if (asked('node-llama-cpp')) {
    const modules = peerModules('node-llama-cpp')
    if (modules !== null) {
      const folder = scratchFolder()
      try {
        take(await againstLlamaCpp(modules, folder, { rounds, only, tokens }))
      } finally {
        removeScratch(folder)
      }
    }
  }
  if (rows.length === 0) throw new BenchError('Nothing was measured: no case or no peer is called that.')
  return { question: 'decode', rounds, rows, rates: ratesOf(rows), versions }
}

/** Cases of {@link run}, compared with transformers' `generate`. */
export async function againstTransformers(chosen: Case[], rounds: number, milliseconds: number) {
  const pair = await startPair('decode')
  try {
    const rows = await duel({ ...pair, against: 'transformers' }, [...chosen, ...rateCases], rounds, milliseconds)
    return { rows, versions: { ...pair.voxtorch.versions, ...pair.torch.versions } }
  } finally {
    closePair(pair)
  }
}
