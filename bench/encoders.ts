import { type Case, closePair, duel, type Pair, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError, peerModules, startNode } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * Base-sized networks with random weights, the same on all sides; all have as many threads. Python's as transformers has them
 * (eager attention), and the same by `torch.compile`; onnxruntime-node has what torch.onnx writes of them.
 */
const cases: Case[] = [
  { name: 'roberta', label: 'RoBERTa-base, 8×128, forward', target: 1 },
  { name: 'wavlm', label: 'WavLM-base, 10 s, forward', target: 0.85 },
  { name: 'robertaHalf', label: 'RoBERTa-base, 8×128, forward, bfloat16', target: 0.7 },
  { name: 'wavlmHalf', label: 'WavLM-base, 10 s, forward, bfloat16', target: 0.7 },
  { name: 'robertaStep', label: 'RoBERTa-base, 8×128, forward and backward' },
  { name: 'wavlmStep', label: 'WavLM-base, 10 s, forward and backward' },
]

const FORWARD = cases.filter(({ name }) => !name.endsWith('Step'))
/** The first call compiles, which takes a minute or two: only who asks for it by `--against`, or for everything, waits. */
const compiled = FORWARD.map(({ target: _, ...one }): Case => ({ ...one, theirs: `${one.name}Compiled` }))
const onnx = FORWARD.filter(({ name }) => !name.endsWith('Half')).map(({ target: _, ...one }): Case => one)

const MOST_DIFFERENCE = 1e-3

export async function run({ rounds = 9, milliseconds = 1, only = '', against = '' }: Options): Promise<Report> {
  const of = (peer: string, all: Case[]) => (peer.includes(against) ? all.filter((one) => isAsked(only, one)) : [])
  const folder = scratchFolder()
  const pair = await startPair('encoders')
  try {
    await pair.voxtorch.ask({ make: folder })
    agree('transformers', await pair.torch.ask({ load: folder }))
    const rows: Row[] = []
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    const add = async (made: Pair, asked: Case[]) => {
      if (asked.length > 0) rows.push(...(await duel(made, asked, rounds, milliseconds)))
    }
    await add({ ...pair, against: 'eager' }, of('eager', cases))
    await add({ ...pair, against: 'torch.compile' }, of('torch.compile', compiled))
    const asked = of('onnxruntime', onnx)
    const modules = asked.length === 0 ? null : peerModules('onnxruntime-node')
    if (modules !== null) {
      const files = (await pair.torch.ask({ onnx: asked.map(({ name }) => name) })).files as string
      const threads = pair.voxtorch.versions.voxtorch_threads as string
      const torch = await startNode('onnxruntime', 'encoders-onnxruntime', modules, files, threads)
      try {
        for (const { name } of asked) agree('onnxruntime', await torch.ask({ agree: name }))
        await add({ voxtorch: pair.voxtorch, torch, against: 'onnxruntime' }, asked)
        versions.onnxruntime = torch.versions.onnxruntime as string
      } finally {
        torch.close()
      }
    }
    if (rows.length === 0) throw new BenchError('Nothing was measured: no case or no peer is called that.')
    rows.push(...(await duel(pair, rateCases, rounds, milliseconds)))
    return { question: 'encoders', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
    removeScratch(folder)
  }
}

/** Check that both sides compute the same before timing. */
function agree(side: string, { differences }: Record<string, unknown>) {
  for (const [name, difference] of Object.entries(differences as Record<string, number>)) {
    console.log(`${name}: differs from ${side} by ${difference.toExponential(1)}`)
    if (difference <= MOST_DIFFERENCE) continue
    throw new BenchError(`${name} differs from ${side} by more than ${MOST_DIFFERENCE}.`)
  }
}
