import { type Case, closePair, duel, type Pair, rateCases, ratesOf, startPair } from './duel.js'
import { isAsked, type Options } from './options.js'
import { BenchError } from './peer.js'
import type { Report, Row } from './report.js'
import { removeScratch, scratchFolder } from './scratch.js'
import { summarise } from './statistics.js'

/**
 * An InternVL2 of the 1B's widths with 4 layers of each part and random weights, the same on both sides: transformers' InternVL with
 * the attention that it chooses itself, PEFT's LoRA, Pillow. A step of LoRA is forward and backward of one clip of 8 frames; with
 * the vision part's features kept, ours needs no vision part. Seven labels are scored there by seven passes. Tokens are steps from a
 * cache that has read the prompt. The photographs are scikit-image's (`pip install scikit-image==0.26.0`, for this case alone), decoded
 * beforehand on both sides and cut in the order of Pillow 13, which both have. Below the times stands the most memory that each case
 * takes above what was there before it. A prompt ends with the next token: our last layer computes only keys and values
 * of the tokens before, which saves a fifth of a prompt's work with 4 layers, and a thirtieth with 24. VOXTORCH_BENCH_SIZE=tiny shows that it runs.
 */
const cases: Case[] = [
  { name: 'vision', label: 'InternViT, 4 of 24 layers, 4 tiles' },
  { name: 'prefill', label: 'prefill of 2,048 visual tokens, 4 of 24 layers', target: 0.95 },
  { name: 'decode', label: '32 steps from a cache of 288 tokens, 4 of 24 layers', target: 0.65 },
  { name: 'step', label: 'LoRA step, 8 frames', target: 0.9 },
  { name: 'stepKept', theirs: 'step', label: 'LoRA step, 8 frames, features kept', target: 0.6 },
  { name: 'labels', label: '7 labels after 2,048 visual tokens', target: 0.3 },
  { name: 'tiles', label: 'tiles of 100 photographs, decoded', target: 1 },
]

const MOST_DIFFERENCE = 1e-3

export async function run({ rounds = 3, milliseconds = 1, only = '' }: Options): Promise<Report> {
  const asked = cases.filter((one) => isAsked(only, one))
  const peaks = cases.filter(({ name, label }) => isAsked(only, { name, label: peakLabel(label) }))
  if (asked.length + peaks.length === 0) throw new BenchError('Nothing was measured: no case is called that.')
  const folder = scratchFolder()
  const pair = await startPair('emoverse')
  try {
    const wanted = [...asked, ...peaks].some(({ name }) => name === 'tiles')
    const { photographs } = wanted ? await pair.torch.ask({ photographs: true }) : { photographs: [] }
    await pair.voxtorch.ask({ make: folder, photographs })
    const { difference, tokens, tiles } = await pair.torch.ask({ load: folder, photographs })
    console.log(
      `logits differ from transformers' by ${Number(difference).toExponential(1)}, ${tokens} tokens, tiles in ${tiles} bytes`,
    )
    if (!(Number(difference) <= MOST_DIFFERENCE)) throw new BenchError(`Logits differ by more than ${MOST_DIFFERENCE}.`)
    if (tokens !== 0 || tiles !== 0) throw new BenchError('Tokens or tiles are others than those of the other side.')
    const rows = await duel({ ...pair, against: 'transformers' }, [...asked, ...rateCases], rounds, milliseconds)
    for (const one of peaks) rows.push(await peakRow(pair, one))
    const versions = { ...pair.voxtorch.versions, ...pair.torch.versions }
    return { question: 'emoverse', rounds, rows, rates: ratesOf(rows), versions }
  } finally {
    closePair(pair)
    removeScratch(folder)
  }
}

/** `--only "peak RSS"` asks for these alone. */
const peakLabel = (label: string): string => `${label}, peak RSS`

async function peakRow({ voxtorch, torch }: Pair, { name, theirs = name, label }: Case): Promise<Row> {
  const [ours, other] = [await voxtorch.ask({ peak: name }), await torch.ask({ peak: theirs })]
  const of = ({ peak }: Record<string, unknown>) => summarise([Number(peak) / 2 ** 20])
  const [own, their] = [of(ours), of(other)]
  return {
    label: peakLabel(label),
    unit: 'MiB',
    voxtorch: own,
    torch: their,
    against: 'transformers',
    ratio: own.median / their.median,
  }
}
