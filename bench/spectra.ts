import { measureRates } from './duel.js'
import type { Options } from './options.js'
import { BenchError, findPython, type Peer, startTorch, startVoxtorch } from './peer.js'
import type { Report, Row } from './report.js'
import { compare, summarise } from './statistics.js'

type Work = 'forward' | 'step'
type Case = {
  name: string
  label: string
  target: number
  /** Networks that the peers build, and pairs to compare: a Python peer has one. */
  build: 'even' | 'mix'
  work: Work
  networks: readonly [string, string]
}

const mix = '8 clips of 1.5 to 10 s with 6 to 60 tokens'
const ours = 'both voxtorch: without padding / padded to the longest'
const cases: Case[] = [
  {
    name: 'step',
    label: 'SPECTRA-base, fine-tuning step, 2 × (10 s, 64 tokens)',
    target: 1,
    build: 'even',
    work: 'step',
    networks: ['plain', 'torch'],
  },
  {
    name: 'forward',
    label: 'SPECTRA-base, inference, 2 × (10 s, 64 tokens)',
    target: 1,
    build: 'even',
    work: 'forward',
    networks: ['plain', 'torch'],
  },
  {
    name: 'mixStep',
    label: `SPECTRA-base, fine-tuning step, ${mix} (${ours})`,
    target: 0.77,
    build: 'mix',
    work: 'step',
    networks: ['free', 'padded'],
  },
  {
    name: 'mixForward',
    label: `SPECTRA-base, inference, ${mix} (${ours})`,
    target: 0.77,
    build: 'mix',
    work: 'forward',
    networks: ['free', 'padded'],
  },
]

/**
 * Fine-tuning steps (forward, backward, gradient clipping, AdamW) and inference of the whole network: against the same
 * network of transformers' encoders, each side in a fresh process, and on lengths that differ against itself with padding,
 * both in one process because two would not fit into memory. Single passes alternate.
 */
export async function run({ rounds = 5, only = '' }: Options): Promise<Report> {
  const chosen = cases.filter(({ name, label }) => `${name} ${label}`.includes(only))
  const { rates, versions } = await measureRates()
  const rows: Row[] = []
  for (const one of chosen) {
    const voxtorch = await startVoxtorch('spectra')
    const other = one.build === 'mix' ? voxtorch : await startTorch('spectra', findPython())
    try {
      rows.push(await measure(one, [voxtorch, other], rounds))
    } finally {
      for (const peer of new Set([voxtorch, other])) peer.close()
    }
  }
  return { question: 'spectra', rounds, rows, rates, versions }
}

async function measure({ name, label, target, build, work, networks }: Case, peers: [Peer, Peer], rounds: number) {
  for (const peer of new Set(peers)) await peer.ask({ build })
  const times: [number[], number[]] = [[], []]
  const losses = [0, 0]
  for (let round = -1; round < rounds; round += 1) {
    for (const side of round % 2 === 0 ? [0, 1] : [1, 0]) {
      const reply = await peers[side].ask({ network: networks[side], work, steps: 1 })
      losses[side] = Number(reply.loss)
      if (round >= 0) times[side].push(Number(reply.milliseconds)) // round -1 warms up
    }
    // Both sides have the same weights and batch, and no dropout.
    if (!(Math.abs(losses[0] - losses[1]) <= 1e-3 * Math.abs(losses[1]))) {
      throw new BenchError(`The losses of ${name} differ: ${losses[0]} and ${losses[1]}.`)
    }
  }
  const ratios = compare(times[0], times[1])
  const [voxtorch, torch] = times.map(summarise)
  return { label, unit: 'ms', voxtorch, torch, ...ratios, target, met: ratios.ratio <= target }
}
