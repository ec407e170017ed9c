import { argumentError, requireOptions, requireWhole } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { evaluateBatches } from '../../../kit/evaluate.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import { type Tensor, tensor } from '../../../tensor/index.js'
import { packedExamples } from '../data/collate.js'
import { IGNORED, type UsdmExample } from '../data/prompt.js'
import { UsdmTokenizer } from '../data/text.js'

/** Mean loss of each part of the examples, and its number of tokens; null if there are none. */
export interface UsdmLosses {
  /** Transcript of the user's speech, given its units. */
  transcript: number | null
  transcriptTokens: number
  /** Text of the agent's reply, given the transcript. */
  reply: number | null
  replyTokens: number
  /** Units of the reply, given its text. */
  speech: number | null
  speechTokens: number
}

const KINDS = ['transcript', 'reply', 'speech'] as const
type Kind = (typeof KINDS)[number]

/**
 * Return the mean loss of each part of examples: the transcript given the user's units, the reply given the transcript, and the units of
 * the reply given its text. Compare with the losses on examples with units of other turns, to see how much the model uses the audio.
 */
export async function usdmLosses(
  model: DecoderLM,
  tokenizer: UsdmTokenizer,
  examples: readonly UsdmExample[],
  options: { batchSize?: number } = {},
): Promise<UsdmLosses> {
  const where = 'usdmLosses'
  if (!(model instanceof DecoderLM)) throw argumentError(where, 'model', 'a DecoderLM', model)
  if (!(tokenizer instanceof UsdmTokenizer)) throw argumentError(where, 'tokenizer', 'a UsdmTokenizer', tokenizer)
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
    const allLabels = (labels.toArray() as bigint[][])[0] as bigint[]
    for (const kind of KINDS) {
      const partLabels = allLabels.map((label, i) => (kinds[i] === kind ? Number(label) : IGNORED))
      const tokens = partLabels.filter((label) => label !== IGNORED).length
      if (tokens === 0) continue
      const { loss } = await model.forward({
        inputIds: inputIds.to(device),
        labels: tensor([partLabels], { dtype: 'int64' }).to(device),
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

/** Return the part that each id belongs to; undefined for tokens that do not contribute to the loss. */
function kindsOf({ inputIds, labels }: UsdmExample, correspond: number): (Kind | undefined)[] {
  let kind: Kind = 'speech'
  return inputIds.map((id, i) => {
    if (labels[i] === IGNORED) return undefined
    // Transcripts and replies alternate. The <|correspond|> token belongs to the reply's text, and its units follow.
    if (i === 0 || labels[i - 1] === IGNORED) kind = kind === 'speech' ? 'transcript' : 'reply'
    const idKind = kind
    if (kind === 'reply' && id === correspond) kind = 'speech'
    return idKind
  })
}
