import { getRank, getWorldSize } from '../distributed/index.js'
import { padTokens } from '../kit/pad.js'
import { rougeL } from '../kit/rouge-l.js'
import { AudioLM } from '../models/audio-lm/audio-lm.js'
import { fillerId } from '../models/audio-lm/processor.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import type { InternVL } from '../models/internvl/internvl.js'
import { withEvalMode } from '../nn/eval-mode.js'
import { scope } from '../tensor/index.js'
import { cer, wer } from '../train/metrics/error-rate.js'
import { Ranks } from '../train/trainer/distributed.js'
import type { RecordReader, SftExample } from './examples.js'
import type { AnswerMetric, SftSettings } from './settings.js'

type Answer = NonNullable<SftExample['answer']>

/** Return the metrics of texts. */
export function answerMetrics(
  metrics: readonly AnswerMetric[],
  answers: readonly string[],
  references: readonly string[],
  normalize: (text: string) => string,
): Record<string, number> {
  const normalized = (texts: readonly string[]) => texts.map((text) => normalize(text))
  const mean = (of: (answer: string, reference: string) => number) =>
    answers.reduce((sum, answer, i) => sum + of(answer, references[i] as string), 0) / answers.length
  const compute: Record<AnswerMetric, () => number> = {
    wer: () => wer(normalized(references), normalized(answers)),
    cer: () => cer(normalized(references), normalized(answers)),
    exactMatch: () => mean((answer, reference) => Number(answer.trim() === reference.trim())),
    rougeL: () => mean((answer, reference) => rougeL(answer, reference).f1),
  }
  return Object.fromEntries(metrics.map((name) => [name, compute[name]()]))
}

/**
 * Generate an answer to each prompt greedily. Each process generates a part of them; all return all.
 * @throws DistributedError if another process fails
 */
export async function generateAnswers(
  model: DecoderLM | AudioLM | InternVL,
  { tokenizer, media }: Pick<RecordReader, 'tokenizer' | 'media'>,
  answers: readonly Answer[],
  { evalBatchSize, maxNewTokens }: Pick<SftSettings, 'evalBatchSize' | 'maxNewTokens'>,
): Promise<string[]> {
  const { eosTokenId = [] } = model.generationConfig
  const ends = [eosTokenId, tokenizer.eosTokenId, ...answers.map(({ endIds }) => endIds)].flat()
  const config = {
    ...{ doSample: false, numBeams: 1, maxNewTokens, maxLength: null },
    eosTokenId: [...new Set(ends.filter((id) => id !== null))],
  }
  const [rank, size] = [getRank(), getWorldSize()]
  const own = answers.filter((_, i) => i % size === rank)
  const generate = async () => {
    const found: string[] = []
    for (let at = 0; at < own.length; at += evalBatchSize) {
      const some = own.slice(at, at + evalBatchSize)
      const tokens = await scope(async () => {
        const rows = some.map(({ promptIds }) => promptIds)
        const value = model instanceof AudioLM ? fillerId(model.config, tokenizer) : 0
        const text = {
          inputIds: padTokens(rows, { side: 'left', value }),
          attentionMask: padTokens(
            rows.map((row) => row.map(() => 1)),
            { side: 'left' },
          ),
        }
        const clips = some.flatMap((one) => one.clips)
        const inputs = media !== null && clips.length > 0 ? await media.inputsOf(clips) : {}
        return (await model.generate({ ...text, ...inputs }, config as never)).tokens
      })
      for (const ids of tokens) found.push(tokenizer.decode(ids, { skipSpecialTokens: true }))
    }
    return found
  }
  const parts = await new Ranks(rank, size).each('generateAnswers', () => withEvalMode(model, generate))
  return answers.map((_, i) => parts[i % size]?.[Math.floor(i / size)] as string)
}
