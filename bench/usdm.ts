import { againstTransformers, BANNED } from './decode.js'
import { type Case, closePair, duel, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { compare } from './statistics.js'

/**
 * The networks around USDM's language model in their published sizes with random weights, the same on both sides: XLS-R 1B as far as
 * units need it, against transformers' as far and against all 48 blocks, which the original runs; the Voicebox with guidance, two
 * evaluations and the 50 that a reply takes as published, against a restatement in PyTorch that makes all scores and biases as the
 * original does; BigVGAN by NVIDIA's own code; decoding with 10,000 tokens banned, which is a case of `decode`; units of a folder of
 * clips, batched by length and one by one, both ours; and a spoken reply through all three passes, to its first audio and complete,
 * both ours (SmolLM2-135M as published writes texts and units). What takes minutes is measured once.
 */
const BATCHED = 'units of 1,000 clips of 1 to 5 s (12 layers of 768), batched'
const SINGLY = 'the same, one by one'
const FIRST = 'a reply of 6 s to 3 s, to its first audio'
const WHOLE = 'the same, until all of it is there'

const cases: Case[] = [
  { name: 'xlsr', label: 'XLS-R 1B, 35 blocks, 10 s', target: 0.95 },
  { name: 'xlsr', theirs: 'xlsrWhole', label: 'XLS-R 1B, 10 s, 35 of the 48 blocks that they run', target: 0.7 },
  { name: 'voicebox', label: 'Voicebox, 2 evaluations with guidance, 5 s', target: 0.95 },
  { name: 'voiceboxWhole', label: 'Voicebox, 50 evaluations (Heun) with guidance, 2 s', target: 0.95, once: true },
  { name: 'bigvgan', label: 'BigVGAN, 5 s', target: 0.8 },
  { name: 'unitsBatched', label: BATCHED, alone: true, once: true },
  { name: 'unitsSingly', label: SINGLY, alone: true, once: true },
  { name: 'replyFirst', label: FIRST, alone: true },
  { name: 'replyWhole', label: WHOLE, alone: true },
]

const MOST_DIFFERENCE = 1e-3

export async function run({ rounds = 3, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const asked = cases.filter((one) => isAsked(only, one))
  const isBanned = isAsked(only, BANNED)
  if (asked.length === 0 && !isBanned) throw new BenchError('Nothing was measured: no case is called that.')
  const banned = isBanned ? await againstTransformers([BANNED], rounds, milliseconds) : undefined
  const made = asked.length > 0 ? await againstTheirs(asked, rounds, milliseconds) : undefined
  // The rates of both are of one machine.
  const isWanted = ({ label }: Row) => made === undefined || label.startsWith(BANNED.label)
  const rows = [...(banned?.rows ?? []).filter(isWanted), ...(made?.rows ?? [])]
  const versions = { ...banned?.versions, ...made?.versions }
  return { question: 'usdm', rounds, rows, rates: ratesOf(rows), versions }
}

async function againstTheirs(asked: Case[], rounds: number, milliseconds: number) {
  const names = [...new Set(asked.map(({ name }) => name))]
  const folder = scratchFolder()
  const pair = await startPair('usdm')
  try {
    await pair.voxtorch.ask({ make: folder, names })
    const { differences } = await pair.torch.ask({
      load: folder,
      names: [...new Set(asked.filter(({ alone }) => !alone).map(({ name }) => name))],
    })
    for (const [name, difference] of Object.entries(differences as Record<string, number>)) {
      console.log(`${name}: differs from theirs by ${difference.toExponential(1)}`)
      if (!(difference <= MOST_DIFFERENCE)) throw new BenchError(`${name} differs by more than ${MOST_DIFFERENCE}.`)
    }
    const rows = await duel(pair, [...asked, ...rateCases], rounds, milliseconds)
    return {
      rows: [...rows, ...oursAgainstOurs(rows)],
      versions: { ...pair.voxtorch.versions, ...pair.torch.versions },
    }
  } finally {
    closePair(pair)
    removeScratch(folder)
  }
}

/** Time of one of our cases divided by another's: separate rows, because neither has a peer. */
export function oursAgainstOurs(rows: readonly Row[]): Row[] {
  const ratios = [
    { label: 'units of 1,000 clips: batched, of their time one by one', one: BATCHED, other: SINGLY, target: 0.67 },
    { label: 'a reply: time to first audio divided by the total', one: FIRST, other: WHOLE, target: 0.4 },
  ]
  return ratios.flatMap(({ label, one, other, target }) => {
    const [ours, theirs] = [one, other].map((name) => rows.find((row) => row.label === name))
    if (!ours || !theirs) return []
    const compared = compare(ours.voxtorch.samples, theirs.voxtorch.samples)
    const sides = { voxtorch: ours.voxtorch, torch: theirs.voxtorch, against: 'voxtorch' }
    return [{ label, unit: ours.unit, ...sides, ...compared, target, met: compared.ratio <= target }]
  })
}
