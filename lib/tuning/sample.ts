import type { Random } from '../data/random.js'
import { ContinuousBatching, enqueueIn } from '../generation/batching.js'
import { generationConfig } from '../generation/config.js'
import { FINISH_REASONS, GenerationSession } from '../generation/session.js'
import { AudioLM } from '../models/audio-lm/audio-lm.js'
import { withEvalMode } from '../nn/eval-mode.js'
import { noGrad, scope, type Tensor, tensor } from '../tensor/index.js'
import { audioBatch, audioEmbeds, audioIdOf, type TuningModel } from './audio.js'
import type { Prompt } from './prompts.js'

/** Settings of sampling. */
export interface SampleSettings {
  /** Tokens that end an answer. */
  eosTokenId: number | number[] | null
  maxCompletionLength: number
  maxNumSeqs: number
  temperature: number
  topK: number
  topP: number
}

/** A sampled answer. */
export interface SampledAnswer {
  /** Token ids, with the end-of-sequence token. */
  ids: number[]
  /** Whether the answer reached the maximum length. */
  isTruncated: boolean
}

/** Bytes of keys and values of prompts that the answers of a group share. */
const PREFIX_BYTES = 256 * 2 ** 20

/**
 * Sample `count` answers for each prompt by continuous batching with the current weights and adapters, in the order of the prompts. Answers depend
 * only on the weights, the prompts and the random numbers, not on timing: all sequences join the batching at once.
 * @param randomOf returns the random numbers of an answer; undefined for greedy decoding
 */
export async function sampleAnswers(
  model: TuningModel,
  prompts: readonly Prompt[],
  count: number,
  settings: SampleSettings,
  randomOf?: (answer: number) => Random,
): Promise<SampledAnswer[]> {
  const { eosTokenId, maxCompletionLength: most, maxNumSeqs, temperature, topK, topP } = settings
  const decoder = model instanceof AudioLM ? model.language_model : model
  const audioId = audioIdOf(model)
  const config = generationConfig({
    ...{ doSample: randomOf !== undefined, maxNewTokens: most, eosTokenId: eosTokenId ?? [] },
    ...(randomOf && { temperature, topK, topP }),
    // An answer with it would have a place for a clip that there is not.
    ...(audioId !== null && audioId < (decoder.config.vocabSize ?? 0) && { suppressTokens: [audioId] }),
  })
  const sample = async () => {
    const inputs: { inputIds: Tensor; inputsEmbeds?: Tensor; prefixKeys?: Tensor }[] = []
    for (const [i, prompt] of prompts.entries()) inputs.push(await promptInputs(model, prompt, i))
    using batching = new ContinuousBatching(decoder, { maxNumSeqs, prefixCacheBytes: PREFIX_BYTES })
    return await Promise.all(
      prompts.flatMap(({ ids }, i) =>
        Array.from({ length: count }, async (_, j) => {
          const random = randomOf?.(i * count + j)
          const session = new GenerationSession(config)
          const draws = random && Float64Array.from({ length: most }, () => random.float())
          const uniforms = draws && tensor(draws, { shape: [most, 1], dtype: 'float64', device: 'cpu' })
          const sequence = enqueueIn(batching, {
            session,
            inputs: { ...inputs[i], ...(uniforms && { uniforms }) },
            tokens: ids.length + most,
            allowed: undefined,
          })
          try {
            const answer: number[] = []
            for (;;) {
              const { tokens, ends, done } = await sequence.next()
              answer.push(tokens[0] as number)
              if (done) return { ids: answer, isTruncated: FINISH_REASONS[ends[0] as number] === 'length' }
            }
          } finally {
            sequence.leave()
            session.dispose()
          }
        }),
      ),
    )
  }
  return scope(() => noGrad(() => withEvalMode(model, sample)))
}

/** Return the inputs of the language model for a prompt. The answers of a prompt share its keys and values, with those of its clips. */
async function promptInputs(model: TuningModel, { ids, audio }: Prompt, index: number) {
  const { device } = model.parameters()[0] as Tensor
  const inputIds = tensor([ids], { dtype: 'int64', device: device as 'cpu' })
  if (audio === undefined || !(model instanceof AudioLM)) return { inputIds }
  return scope(async () => {
    const batch = await audioBatch(model, [audio])
    const embeds = batch && { audioEmbeds: await audioEmbeds(model, batch) }
    const audioId = audioIdOf(model)
    const keys = ids.map((id) => (id === audioId ? -1 - index : id))
    const prefixKeys = tensor([keys], { dtype: 'int64', device: 'cpu' })
    return { inputIds: model.textIds(inputIds), inputsEmbeds: await model.embed(inputIds, embeds), prefixKeys }
  })
}
