import { argumentError, defined, requireOneOf, requireSignal, requireWhole } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { ContinuousBatching } from '../../../generation/batching.js'
import { type GenerationConfig, generationConfig } from '../../../generation/config.js'
import { stream } from '../../../generation/generate.js'
import { eachStep } from '../../../generation/generators.js'
import { untilStop } from '../../../kit/chat.js'
import { INTERNVL_TEMPLATES } from '../../../models/internvl/prompt.js'
import { withEvalMode } from '../../../nn/index.js'
import { Generator, noGrad, scope, tensor } from '../../../tensor/index.js'
import { audioPlacesOf, type EmoVerseSampleTokens, withoutPlaces } from '../data/collate.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import type { MediaPlace } from '../data/media.js'
import { allowedBy } from './allowed.js'
import { encodeWithin, isTooLong, type PromptLimits, requireLimits } from './limits.js'
import type { EmoVerse } from './network.js'

export interface EmoVerseGenerateOptions extends Omit<GenerationConfig, keyof PromptLimits>, MediaPlace, PromptLimits {
  /** 'published': answer a prompt that is too long with '' instead of failing, as ms-swift 2.6 does. */
  compat?: 'published'
  /** Prompts per batch. Default 8. */
  batchSize?: number
  /** Constrain answers to what their question allows: a label, or pairs of the target and its causes. Default false. */
  constrained?: boolean
  /**
   * Random seed of sampling, combined with each record's index, so that answers depend neither on the batch size nor on where a run was
   * continued. Default: the CPU's default generator.
   */
  seed?: number
  signal?: AbortSignal
}

/** A generated answer. */
export interface EmoVerseAnswer {
  text: string
  /** Number of generated tokens. */
  tokens: number
}

export interface EmoVerseStreamOptions extends Omit<GenerationConfig, keyof PromptLimits>, MediaPlace, PromptLimits {
  /** Constrain the answer to what its question allows: a label, or pairs of the target and its causes. Default false. */
  constrained?: boolean
  signal?: AbortSignal
  /** Random generator of sampling. Default: the CPU's default generator. */
  generator?: Generator
}

/** A piece of an answer. */
export interface EmoVersePiece {
  text: string
  /** Number of tokens of the piece. */
  tokens: number
  /** In the last piece: 'stop' if the answer ended, 'length' if it reached the limit. Otherwise null. */
  finishReason: 'stop' | 'length' | null
}

/** Size of the cache of common prompt prefixes. */
const PREFIX_BYTES = 128e6

interface BatchHooks {
  /** Called for a record that cannot be encoded, whose answer is then ''. Without it such a record fails the call. */
  onBad?: (error: DataError, index: number) => void
  /** Map an index in this batch to the index in the data. */
  placeOf?: (index: number) => number
}

/** Answer records. @see EmoVerse.generate */
export async function generateAnswers(
  model: EmoVerse,
  records: readonly EmoVerseQuestion[],
  options: EmoVerseGenerateOptions,
  { onBad, placeOf = (i) => i }: BatchHooks = {},
): Promise<EmoVerseAnswer[]> {
  const where = 'EmoVerse.generate'
  if (!Array.isArray(records)) throw argumentError(where, 'records', 'a list of records', records)
  const { maxLength, maxExpandedLength, compat, batchSize = 8, constrained = false, ...others } = options
  const { seed, signal, mediaRoot, ...config } = others
  const limits = defined({ maxLength, maxExpandedLength })
  requireLimits(where, limits)
  requireWhole(where, 'batchSize', batchSize, 1)
  requireForm(where, 'options', { constrained }, { constrained: 'boolean' })
  if (seed !== undefined) requireWhole(where, 'seed', seed)
  requireSignal(where, signal)
  if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
  const settings = settingsOf(where, model, config)
  const { llm } = model
  const answers = new Array<EmoVerseAnswer>(records.length)
  const answer = async (i: number, batching: ContinuousBatching): Promise<EmoVerseAnswer> => {
    const what = onBad ? undefined : `record ${i + 1} of ${records.length}`
    const record = records[i] as EmoVerseQuestion
    let sample: EmoVerseSampleTokens
    try {
      sample = await encodeWithin(model, record, limits, { mediaRoot, signal }, what)
    } catch (error) {
      const isPublished = compat === 'published' && isTooLong(error)
      if (!isPublished && !(onBad && error instanceof DataError)) throw error
      if (!isPublished) onBad?.(error as DataError, i)
      return { text: '', tokens: 0 }
    }
    const written = await scope(async () => {
      const prompt = await promptOf(model, sample, 0)
      const own = constrained ? allowedBy(model, record.query, config) : {}
      const generator = seed === undefined ? undefined : new Generator({ seed: seed + placeOf(i) })
      const control = defined({ batching, signal, generator })
      const { tokens } = await llm.generate(prompt, { ...settings, ...own }, control)
      return tokens[0] as number[]
    })
    return { text: model.textOf(written), tokens: written.length }
  }
  return withEvalMode(model.whole, async () => {
    using batching = new ContinuousBatching(llm, { maxNumSeqs: batchSize, prefixCacheBytes: PREFIX_BYTES })
    // Encode only as many prompts as fit a batch: images of waiting prompts would use memory.
    let next = 0
    const turns = Array.from({ length: Math.min(batchSize, records.length) }, async () => {
      while (next < records.length) {
        const i = next++
        answers[i] = await answer(i, batching)
      }
    })
    try {
      await Promise.all(turns)
    } catch (error) {
      next = records.length
      throw error
    }
    return answers
  })
}

/** Stream an answer. @see EmoVerse.stream */
export async function* streamAnswer(
  model: EmoVerse,
  record: EmoVerseQuestion,
  options: EmoVerseStreamOptions,
): AsyncGenerator<EmoVersePiece, void, void> {
  const where = 'EmoVerse.stream'
  const { maxLength, maxExpandedLength, constrained = false, signal, mediaRoot, generator, ...config } = options
  const limits = defined({ maxLength, maxExpandedLength })
  requireForm(where, 'options', { constrained }, { constrained: 'boolean' })
  requireLimits(where, limits)
  requireSignal(where, signal)
  const whole = settingsOf(where, model, config)
  const sample = await encodeWithin(model, record, limits, { mediaRoot, signal })
  const marks = model.marksOf(sample)
  const prefix = await model.prefixCaches.take(marks)
  const written: number[] = []
  let isWhole = false
  let reason: EmoVersePiece['finishReason'] = null
  const decoder = model.tokenizer.decodeStream({ skipSpecialTokens: false })
  const { end } = INTERNVL_TEMPLATES[model.template]
  const last = model.tokenizer.eosTokenId
  async function* pieces(): AsyncGenerator<{ text: string; tokens: number }, void, void> {
    const prompt = await scope(() => promptOf(model, sample, prefix.known))
    try {
      const own = constrained ? allowedBy(model, record.query, config) : {}
      const settings = { ...whole, ...own }
      const control = { ...(signal && { signal }), ...(generator && { generator }) }
      const steps = stream(model.llm, { ...prompt, cache: prefix.cache }, settings, control)
      for await (const { tokens, finishReasons } of steps) {
        const token = tokens[0] as number
        const finish = finishReasons[0] ?? null
        written.push(token)
        if (finish !== null) {
          reason = finish === 'length' ? 'length' : 'stop'
          isWhole = true
        }
        const isEnd = finish !== null && token === last
        yield { text: isEnd ? '' : decoder.push(token), tokens: 1 }
      }
      const rest = decoder.end()
      if (rest !== '') yield { text: rest, tokens: 0 }
    } finally {
      for (const value of Object.values(prompt)) value.dispose()
    }
  }
  try {
    // Other code may set training mode between steps.
    for await (const piece of eachStep(untilStop(pieces(), [end]), (step) => withEvalMode(model.whole, step))) {
      yield { ...piece, finishReason: null }
    }
    yield { text: '', tokens: 0, finishReason: reason ?? 'stop' }
  } finally {
    prefix.leave(isWhole ? [...marks, ...written.slice(0, -1)] : undefined)
  }
}

/** Return the language model's inputs for a prompt from token `from` on, in the caller's scope. */
export async function promptOf(
  model: EmoVerse,
  sample: EmoVerseSampleTokens,
  from: number,
  to = sample.inputIds.length,
) {
  const own = sample.inputIds.slice(from, to)
  const ids = tensor([withoutPlaces(own)], { dtype: 'int64', device: deviceOf(model) })
  const imagePlaces = sample.imagePlaces.flatMap((place) => (place >= from && place < to ? [place - from] : []))
  const media = { ...model.mediaFrom(sample, from), imagePlaces, audioPlaces: audioPlacesOf(own) }
  const inputsEmbeds = await noGrad(() => model.embed(ids, media))
  return inputsEmbeds === undefined ? { inputIds: ids } : { inputIds: ids, inputsEmbeds }
}

export const deviceOf = ({ llm }: EmoVerse) => llm.parameters()[0]?.device ?? 'cpu'

/** Options without effect: an answer is only a text. */
const OUTPUTS = [
  'outputScores',
  'outputLogits',
  'outputLogprobs',
] as const satisfies readonly (keyof GenerationConfig)[]

/**
 * Add the template's end tokens to those of the caller's generation configuration.
 * @throws ConfigError for options that an answer cannot return
 */
function settingsOf(where: string, model: EmoVerse, config: GenerationConfig): GenerationConfig {
  if ((config.numReturnSequences ?? 1) !== 1) {
    throw new ConfigError(
      `${where}.numReturnSequences: expected 1, got ${config.numReturnSequences}. Each record has one answer.`,
      {
        argument: 'numReturnSequences',
      },
    )
  }
  for (const name of OUTPUTS) {
    if (!config[name]) continue
    throw new ConfigError(
      `${where}.${name}: expected false, got true: answers are texts. Use scoreLabels, or generate of the network.`,
      { argument: name },
    )
  }
  const { eosTokenId, stopSequences } = endOf(model)
  const own = generationConfig(defined({ eosTokenId: config.eosTokenId, stopSequences: config.stopSequences }))
  const listed = (ids: GenerationConfig['eosTokenId']) => (ids == null ? [] : [ids].flat())
  const stops = [...(stopSequences ?? []), ...(own.stopSequences ?? [])]
  return {
    maxNewTokens: 2048,
    ...config,
    eosTokenId: [...new Set([...listed(eosTokenId), ...listed(own.eosTokenId)])],
    ...(stops.length > 0 && { stopSequences: stops }),
  }
}

/** Return the end of an answer as generation options. */
function endOf({ template, tokenizer }: EmoVerse): GenerationConfig {
  const { end } = INTERNVL_TEMPLATES[template]
  const id = tokenizer.tokenToId(end)
  const ends = [id, tokenizer.eosTokenId].filter((one): one is number => one !== undefined && one !== null)
  if (ends.length === 0)
    throw new ConfigError(
      `tokenizer: expected ${end} or an end-of-sequence token, got neither. Use the tokenizer of the model.`,
      {},
    )
  const spelled = id === undefined ? tokenizer.encode(end, { addSpecialTokens: false }).inputIds : undefined
  return { eosTokenId: [...new Set(ends)], ...(spelled && { stopSequences: [spelled] }) }
}
