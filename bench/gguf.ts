import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { bandwidthCase, type Case, closePair, duel, type Pair, rateCases } from './duel.js'
import { isAsked } from './options.js'
import type { Versions } from './peer.js'
import { BenchError, peersFolder, startNode, startVoxtorch } from './peer.js'
import type { Row } from './report.js'
import { median } from './statistics.js'

/**
 * Language models in GGUF files, which both sides read: LLaMA with 110M random weights, and SmolLM2-135M-Instruct if it is
 * downloaded. A prompt of 32 tokens and 128 greedy tokens (`--tokens`). llama.cpp runs through node-llama-cpp with the same number
 * of threads.
 */
interface Form {
  /** Types of both files. */
  type: 'F32' | 'BF16' | 'Q8_0' | 'Q4_0' | 'Q4_K_M'
  /** Loading options; quantized blocks stay as they are in the file. */
  options: Record<string, unknown>
  /** Target for a token. */
  target?: number
}

const FORMS: Form[] = [
  { type: 'F32', options: { dtype: 'float32' }, target: 0.75 },
  { type: 'BF16', options: { dtype: 'bfloat16' }, target: 0.6 },
  { type: 'Q8_0', options: { dtype: 'float32' }, target: 0.9 },
  { type: 'Q4_0', options: { dtype: 'float32' }, target: 0.9 },
  { type: 'Q4_K_M', options: { dtype: 'float32' }, target: 0.9 },
]

/** Target for a token's time, as a multiple of reading the weights once. */
const FLOOR_TARGET = 1.4

/** Rows of Q4_K are multiples of 256 long, which those of SmolLM2 are not: llama.cpp would write other types instead. */
const NETWORKS = [
  { name: 'llama', label: 'LLaMA 110M', words: 32000, types: ['F32', 'BF16', 'Q8_0', 'Q4_0', 'Q4_K_M'] },
  { name: 'smollm2-135m-instruct', label: 'SmolLM2-135M', words: 49152, types: ['F32', 'BF16', 'Q8_0', 'Q4_0'] },
]

/** Compared with an engine built for the processor: random weights in these shapes. */
const SHAPES = [
  { name: 'llama', label: 'LLaMA 110M' },
  { name: 'qwen3', label: 'Qwen3 0.6B' },
  { name: 'gemma3', label: 'Gemma 3 270M' },
]

/** Target against an engine built for the processor. */
const NATIVE_TARGET = 0.9

const Q4_K_M = 15 // llama.h's LLAMA_FTYPE_MOSTLY_Q4_K_M
const LIBRARIES = '@node-llama-cpp/linux-x64/bins/linux-x64'

type Asked = Case & { file: string; network: string; type: string; from: string }

/**
 * The same files against llama.cpp built for this processor (`llama-bench`): prompts of 32 and 512 tokens, and tokens after them. Its
 * times have no sampling and no JavaScript in them, ours have.
 */
export async function againstNative(
  program: string,
  folder: string,
  { rounds, only, tokens }: { rounds: number; only: string; tokens: number },
): Promise<{ rows: Row[]; versions: Versions }> {
  const voxtorch = await startVoxtorch('gguf')
  const native = await startNode('llama.cpp', 'llama-bench', program, voxtorch.versions.voxtorch_threads as string)
  const pair: Pair = { voxtorch, torch: native, against: 'llama.cpp, built here' }
  try {
    const forms = FORMS.filter(({ type }) => type !== 'Q4_K_M')
    const cases = SHAPES.flatMap(({ name, label }) => {
      const own = forms
        .flatMap(({ type, options }) =>
          [32, 512].map((prompt): Case => {
            const file = join(folder, `${name}-${type}.gguf`)
            const what = `${label} ${type}`
            return {
              ...{ name: `${name}-${type}-${prompt}`, label: `${what}, prompt of ${prompt}` },
              request: { file, options, rows: 1, count: tokens, prompt, warms: true },
              isWarm: true,
              figures: [
                { key: 'prefill', label: `${what}, prompt of ${prompt}`, unit: 'ms', target: NATIVE_TARGET },
                ...(prompt === 32
                  ? [{ key: 'token', label: `${what}, token`, unit: 'ms', target: NATIVE_TARGET } as const]
                  : []),
              ],
            }
          }),
        )
        .filter((one) => isAsked(only, one))
      return own.length > 0 ? [{ name, own }] : []
    })
    for (const { name } of cases) await voxtorch.ask({ write: { folder, name, types: forms.map(({ type }) => type) } })
    const asked = cases.flatMap(({ own }) => own)
    for (const one of asked) await voxtorch.ask({ ...one.request, count: 2 })
    const alone = rateCases.map((one) => ({ ...one, alone: true }))
    const rows = await duel(pair, [...asked, bandwidthCase, ...alone], rounds, 100)
    return { rows, versions: { ...voxtorch.versions, ...native.versions } }
  } finally {
    closePair(pair)
  }
}

export async function againstLlamaCpp(
  modules: string,
  folder: string,
  { rounds, only, tokens }: { rounds: number; only: string; tokens: number },
): Promise<{ rows: Row[]; versions: Versions }> {
  const wanted = NETWORKS.flatMap((network) => casesOf(network, folder, tokens)).filter((one) => isAsked(only, one))
  const voxtorch = await startVoxtorch('gguf')
  const threads = voxtorch.versions.voxtorch_threads as string
  const torch = await startNode('llama.cpp', 'llama-cpp', modules, threads, folder)
  const pair: Pair = { voxtorch, torch, against: 'llama.cpp' }
  try {
    const cases = wanted.filter(({ network }) => isThere(network))
    await write(pair, cases, modules, folder)
    for (const one of cases) {
      const { bytes } = await voxtorch.ask({ bytes: one.file })
      for (const figure of one.figures ?? []) if (figure.floorTarget !== undefined) figure.bytes = Number(bytes)
    }
    await agree(pair, cases)
    const alone = rateCases.map((one) => ({ ...one, alone: true }))
    const rows = await duel(pair, [...cases, bandwidthCase, ...alone], rounds, 100)
    return { rows, versions: { ...voxtorch.versions, ...torch.versions } }
  } finally {
    closePair(pair)
  }
}

function casesOf(
  { name: network, label, words, types }: (typeof NETWORKS)[number],
  folder: string,
  count: number,
): Asked[] {
  return FORMS.filter(({ type }) => types.includes(type)).flatMap(({ type, options, target }) => {
    const path = (kind: string) => join(folder, `${network}-${kind}.gguf`)
    // Rows are of the plain forms and of Q8_0: the other ones are the same kernels.
    return (['F32', 'BF16', 'Q8_0'].includes(type) && network === 'llama' ? [1, 8] : [1]).map((rows): Asked => {
      const what = `${label} ${type}, ${rows} row${rows === 1 ? '' : 's'}`
      return {
        ...{ name: `${network}-${type}-${rows}`, label: what, network, type, file: path(type), from: path('F32') },
        request: { file: path(type), options, rows, count },
        isWarm: true,
        theirRequest: { file: path(type), rows, words, count },
        figures: [
          {
            key: 'token',
            label: `${what}, token`,
            unit: 'ms',
            ...(rows === 1 && { target, floorTarget: FLOOR_TARGET }),
          },
          { key: 'prefill', label: `${what}, prompt of 32`, unit: 'ms' },
        ],
      }
    })
  })
}

function isThere(network: string): boolean {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  if (network === 'llama' || existsSync(join(cache, 'voxtorch/weights', network))) return true
  console.log(`not compared with ${network}: npx voxtorch weights ${network} fetches it`)
  return false
}

/** Create the files of the cases. llama.cpp writes those in Q4_K. */
async function write({ voxtorch }: Pair, cases: Asked[], modules: string, folder: string): Promise<void> {
  for (const { name } of NETWORKS) {
    const own = cases.filter(({ network }) => network === name)
    const types = new Set(own.map(({ type }) => type))
    if (types.size === 0) continue
    const mixed = types.delete('Q4_K_M')
    if (mixed) types.add('F32')
    await voxtorch.ask({ write: { folder, name, types: [...types] } })
    const one = own.find(({ type }) => type === 'Q4_K_M')
    if (one === undefined) continue
    const python = process.env.VOXTORCH_BENCH_PYTHON || 'python3'
    const script = `${peersFolder}llama_quantize.py`
    const args = [script, join(modules, LIBRARIES), one.from, one.file, String(Q4_K_M)]
    const { status, stderr, error } = spawnSync(python, args, { encoding: 'utf8' })
    if (status !== 0) throw new BenchError(`llama.cpp could not write ${one.file}: ${error?.message ?? stderr}`)
  }
}

/**
 * The same tokens in float32, or nothing is timed. llama.cpp keeps keys and values in float16, so that a row may part from
 * ours where two tokens are nearly as likely: the middle one of the rows counts.
 */
async function agree({ voxtorch, torch }: Pair, cases: Asked[]): Promise<void> {
  const LEAST = 16
  const count = 32
  for (const one of cases) {
    const [ours, theirs] = [
      await voxtorch.ask({ ...one.request, count }),
      await torch.ask({ ...one.theirRequest, count }),
    ]
    const [a, b] = [ours.tokens as number[][], theirs.tokens as number[][]]
    const alike = (a[0] as number[]).map((_, row) => {
      const at = a.findIndex((step, i) => step[row] !== b[i][row])
      return at < 0 ? a.length : at
    })
    const same = median(alike)
    console.log(`${one.label}: the first ${same} of ${a.length} tokens are those of llama.cpp`)
    if (one.type === 'F32' && same < LEAST) throw new BenchError(`${one.label}: the tokens of both sides differ.`)
  }
}
