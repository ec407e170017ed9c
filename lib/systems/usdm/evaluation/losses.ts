import { misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { type Tensor, tensor } from '../../../tensor/index.js'
import { packedExamples } from '../data/collate.js'
import { IGNORED, type UsdmExample } from '../data/prompt.js'
import { UsdmTokenizer } from '../data/text.js'

/** Mean losses over the tokens of each kind, and how many there are; null where there are none. */
export interface UsdmLosses {
  /** What the user says, given the units. */
  transcript: number | null
  transcriptTokens: number
  /** What the agent answers, given that. */
  reply: number | null
  replyTokens: number
  /** The units of the answer, given its text. */
  speech: number | null
  speechTokens: number
}

const KINDS = ['transcript', 'reply', 'speech'] as const
type Kind = (typeof KINDS)[number]

/**
 * How well a model tells each part of examples from what stands before it: the transcript from the user's units, the reply
 * from the transcript, the units of the reply from its text. On examples with the units of other turns the difference says
 * whether it listens.
 */
export async function usdmLosses(
  model: DecoderLM,
  tokenizer: UsdmTokenizer,
  examples: readonly UsdmExample[],
  options: { batchSize?: number } = {},
): Promise<UsdmLosses> {
  const where = 'usdmLosses'
  if (!(model instanceof DecoderLM)) throw misuse(where, 'model', 'a DecoderLM', model)
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse(where, 'tokenizer', 'a UsdmTokenizer', tokenizer)
  requireForm(where, 'examples', examples, [{ inputIds: ['number'], labels: ['number'] }])
  requireOptions(where, options, ['batchSize'])
  const { batchSize = 4 } = options
  requireWhole(where, 'batchSize', batchSize, 1)
  const device = model.parameters()[0]?.device ?? 'cpu'
  const batches: UsdmExample[][] = []
  for (let first = 0; first < examples.length; first += batchSize)
    batches.push(examples.slice(first, first + batchSize))
  const sums = Object.fromEntries(KINDS.map((kind) => [kind, { loss: 0, tokens: 0 }])) as Record<
    Kind,
    { loss: number; tokens: number }
  >
  await evaluateBatches(model, batches, async (some: readonly UsdmExample[]) => {
    const { inputIds, labels, sequenceLengths } = packedExamples(some)
    const kinds = some.flatMap((example) => kindsOf(example, tokenizer.ids.correspond))
    const told = (labels.toArray() as bigint[][])[0] as bigint[]
    for (const kind of KINDS) {
      const own = told.map((label, i) => (kinds[i] === kind ? Number(label) : IGNORED))
      const tokens = own.filter((label) => label !== IGNORED).length
      if (tokens === 0) continue
      const { loss } = await model.forward({
        inputIds: inputIds.to(device),
        labels: tensor([own], { dtype: 'int64' }).to(device),
        sequenceLengths: sequenceLengths as number[],
      })
      sums[kind].loss += Number((await (loss as Tensor).to('float64').data())[0]) * tokens
      sums[kind].tokens += tokens
    }
  })
  const mean = ({ loss, tokens }: { loss: number; tokens: number }) => (tokens === 0 ? null : loss / tokens)
  return {
    ...{ transcript: mean(sums.transcript), transcriptTokens: sums.transcript.tokens },
    ...{ reply: mean(sums.reply), replyTokens: sums.reply.tokens },
    ...{ speech: mean(sums.speech), speechTokens: sums.speech.tokens },
  }
}

/** Of each id what of an example it is; undefined where nothing is learnt. */
function kindsOf({ inputIds, labels }: UsdmExample, correspond: number): (Kind | undefined)[] {
  let kind: Kind = 'speech'
  return inputIds.map((id, i) => {
    if (labels[i] === IGNORED) return undefined
    // Transcripts and replies take turns; the last of a reply's text is what its units follow.
    if (i === 0 || labels[i - 1] === IGNORED) kind = kind === 'speech' ? 'transcript' : 'reply'
    const own = kind
    if (kind === 'reply' && id === correspond) kind = 'speech'
    return own
  })
}
