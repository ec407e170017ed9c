import { type Case, closePair, duel, type Pair, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError, findPython, Peer, peersFolder } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'

/**
 * Base-sized networks with random weights, the same on all sides; all have as many threads. Python's as transformers has them
 * (eager attention), and the same by `torch.compile`; onnxruntime and OpenVINO have what torch.onnx writes of them.
 */
const cases: Case[] = [
  { name: 'roberta', label: 'RoBERTa-base, 8×128, forward', target: 1 },
  { name: 'wavlm', label: 'WavLM-base, 10 s, forward', target: 0.85 },
  { name: 'parakeet', label: 'FastConformer 0.6B, 10 s, forward', target: 0.95 },
  { name: 'parakeetLong', label: 'FastConformer 0.6B, 60 s, forward', target: 0.95 },
  { name: 'robertaHalf', label: 'RoBERTa-base, 8×128, forward, bfloat16', target: 0.7 },
  { name: 'wavlmHalf', label: 'WavLM-base, 10 s, forward, bfloat16', target: 0.7 },
  { name: 'robertaStep', label: 'RoBERTa-base, 8×128, forward and backward' },
  { name: 'wavlmStep', label: 'WavLM-base, 10 s, forward and backward' },
]

const FORWARD = cases.filter(({ name }) => !name.endsWith('Step'))
/** The first call compiles, which takes a minute or two: only who asks for it by `--against`, or for everything, waits. */
const compiled = FORWARD.map(({ target: _, ...one }): Case => ({ ...one, theirs: `${one.name}Compiled` }))
const exported = FORWARD.filter(({ name }) => !name.endsWith('Half'))
const ENGINES = ['onnxruntime', 'openvino']

const MOST_DIFFERENCE = 1e-3

export async function run({ rounds = 9, milliseconds = 1, only = '', against = '' }: Options): Promise<Report> {
  const of = (peer: string, all: Case[]) => (peer.includes(against) ? all.filter((one) => isAsked(only, one)) : [])
  const folder = scratchFolder()
  const pair = await startPair('encoders')
  try {
    const wanted = { eager: of('eager', cases), compiled: of('torch.compile', compiled), exported: [] as Case[] }
    wanted.exported = ENGINES.some((engine) => engine.includes(against))
      ? exported.filter((one) => isAsked(only, one))
      : []
    const all = Object.values(wanted).flat()
    const names = exported.map(({ name }) => name).filter((name) => all.some((one) => one.name.startsWith(name)))
    await pair.voxtorch.ask({ make: folder, names })
    agree('transformers', await pair.torch.ask({ load: folder, names }))
    const rows: Row[] = []
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    const add = async (made: Pair, asked: Case[]) => {
      if (asked.length > 0) rows.push(...(await duel(made, asked, rounds, milliseconds)))
    }
    await add({ ...pair, against: 'eager' }, wanted.eager)
    await add({ ...pair, against: 'torch.compile' }, wanted.compiled)
    if (wanted.exported.length > 0) await pair.torch.ask({ onnx: wanted.exported.map(({ name }) => name) })
    for (const engine of ENGINES.filter((one) => wanted.exported.length > 0 && one.includes(against))) {
      const script = `${peersFolder}encoders_exported.py`
      const threads = pair.voxtorch.versions.voxtorch_threads as string
      const torch = await Peer.start(engine, findPython(), ['-u', script, engine, folder, threads])
      try {
        agree(engine, await torch.ask({ agree: true }))
        await add({ voxtorch: pair.voxtorch, torch, against: engine }, wanted.exported)
        Object.assign(versions, torch.versions)
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
