import { defined, misuse, requireOneOf, requireSignal, requireWhole } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { ContinuousBatching } from '../../../generation/batching.js'
import { type GenerationConfig, generationConfig } from '../../../generation/config.js'
import { stream } from '../../../generation/generate.js'
import { untilStop } from '../../../kit/chat.js'
import { INTERNVL_TEMPLATES } from '../../../models/internvl/prompt.js'
import { evaluating } from '../../../nn/index.js'
import { Generator, noGrad, scope, tensor } from '../../../tensor/index.js'
import { type EmoVerseSampleTokens, soundPlacesOf, withoutPlaces } from '../data/collate.js'
import type { EmoVerseQuestion } from '../data/entry.js'
import type { MediaPlace } from '../data/media.js'
import { allowedBy } from './allowed.js'
import { encodeWithin, isTooLong, type PromptLimits, requireLimits } from './limits.js'
import type { EmoVerse } from './network.js'

export interface EmoVerseGenerateOptions extends Omit<GenerationConfig, keyof PromptLimits>, MediaPlace, PromptLimits {
  /** 'published': a prompt that is too long is answered with '' instead of an error, as ms-swift 2.6 does. */
  compat?: 'published'
  /** Prompts that are answered at a time. Default 8. */
  batchSize?: number
  /** Holds answers to what their questions allow: one of the labels, or pairs of the target and its causes. Default false. */
  constrained?: boolean
  /**
   * Of what is drawn, for each record of its own: the same answers however many are written at a time, and where a run is gone on
   * with. Default: the CPU's default generator draws.
   */
  seed?: number
  signal?: AbortSignal
}

/** An answer, and how it came about. */
export interface EmoVerseAnswer {
  text: string
  /** Tokens that were written. */
  tokens: number
}

export interface EmoVerseStreamOptions extends Omit<GenerationConfig, keyof PromptLimits>, MediaPlace, PromptLimits {
  /** Holds the answer to what its question allows: one of the labels, or pairs of the target and its causes. Default false. */
  constrained?: boolean
  signal?: AbortSignal
  /** Where draws come from. Default: the CPU's default generator. */
  generator?: Generator
}

/** A piece of an answer. */
export interface EmoVersePiece {
  text: string
  /** Tokens that it took. */
  tokens: number
  /** In the last piece: whether the answer ended, or reached the limit. */
  finishReason: 'stop' | 'length' | null
}

/** Memory of what prompts begin with, which others that begin alike need not read again. */
const PREFIX_BYTES = 128e6

interface Whole {
  /** Hears of a record that cannot be made tokens, whose answer is '' then; else it ends all of them. */
  onBad?: (error: DataError, index: number) => void
  /** Which of all data a record is, where these are a part. */
  placeOf?: (index: number) => number
}

/** Answers records. @see EmoVerse.generate */
export async function generateAnswers(
  model: EmoVerse,
  records: readonly EmoVerseQuestion[],
  options: EmoVerseGenerateOptions,
  { onBad, placeOf = (i) => i }: Whole = {},
): Promise<EmoVerseAnswer[]> {
  const where = 'EmoVerse.generate'
  if (!Array.isArray(records)) throw misuse(where, 'records', 'a list of records', records)
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
    const what = onBad ? undefined : `Record ${i + 1} of ${records.length}`
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
  return evaluating(model.whole, async () => {
    using batching = new ContinuousBatching(llm, { maxNumSeqs: batchSize, prefixCacheBytes: PREFIX_BYTES })
    // As many at a time as are written together: pictures of those that wait would take memory.
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

/** An answer as it is written. @see EmoVerse.stream */
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
  const begun = await model.beginnings.take(marks)
  const written: number[] = []
  let isWhole = false
  let reason: EmoVersePiece['finishReason'] = null
  const decoder = model.tokenizer.decodeStream({ skipSpecialTokens: false })
  const { end } = INTERNVL_TEMPLATES[model.template]
  const last = model.tokenizer.eosTokenId
  async function* pieces(): AsyncGenerator<{ text: string; tokens: number }, void, void> {
    const prompt = await scope(() => promptOf(model, sample, begun.known))
    try {
      const own = constrained ? allowedBy(model, record.query, config) : {}
      const settings = { ...whole, ...own }
      const control = { ...(signal && { signal }), ...(generator && { generator }) }
      const steps = stream(model.llm, { ...prompt, cache: begun.cache }, settings, control)
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
      for (const made of Object.values(prompt)) made.dispose()
    }
  }
  try {
    yield* evaluatingEach(model, async function* () {
      for await (const piece of untilStop(pieces(), [end])) yield { ...piece, finishReason: null }
    })
    yield { text: '', tokens: 0, finishReason: reason ?? 'stop' }
  } finally {
    begun.leave(isWhole ? [...marks, ...written.slice(0, -1)] : undefined)
  }
}

/** Steps of a generator with a network in evaluation mode, whose mode between them is its own. */
async function* evaluatingEach<T>(
  model: EmoVerse,
  make: () => AsyncGenerator<T, void, void>,
): AsyncGenerator<T, void, void> {
  const steps = make()
  try {
    for (;;) {
      const { value, done } = await evaluating(model.whole, () => steps.next())
      if (done) return
      yield value as T
    }
  } finally {
    await steps.return()
  }
}

/** A prompt from its `from`-th token on, as the language model reads it; in the caller's scope. */
export async function promptOf(
  model: EmoVerse,
  sample: EmoVerseSampleTokens,
  from: number,
  to = sample.inputIds.length,
) {
  const own = sample.inputIds.slice(from, to)
  const ids = tensor([withoutPlaces(own)], { dtype: 'int64', device: deviceOf(model) })
  const picturePlaces = sample.picturePlaces.flatMap((place) => (place >= from && place < to ? [place - from] : []))
  const media = { ...model.mediaFrom(sample, from), picturePlaces, soundPlaces: soundPlacesOf(own) }
  const inputsEmbeds = await noGrad(() => model.embed(ids, media))
  return inputsEmbeds === undefined ? { inputIds: ids } : { inputIds: ids, inputsEmbeds }
}

export const deviceOf = ({ llm }: EmoVerse) => llm.parameters()[0]?.device ?? 'cpu'

/** Computed for nobody: an answer is one text. */
const OUTPUTS = [
  'outputScores',
  'outputLogits',
  'outputLogprobs',
] as const satisfies readonly (keyof GenerationConfig)[]

/**
 * What is asked of the generation: a user's ends of an answer beside those of the template.
 * @throws ConfigError for what an answer has no place for
 */
function settingsOf(where: string, model: EmoVerse, config: GenerationConfig): GenerationConfig {
  if ((config.numReturnSequences ?? 1) !== 1) {
    throw new ConfigError(`${where}: numReturnSequences must be 1, each record has one answer`, {
      argument: 'numReturnSequences',
    })
  }
  for (const name of OUTPUTS) {
    if (!config[name]) continue
    throw new ConfigError(
      `${where}: ${name} is not for answers, which are texts: use scoreLabels, or the network's generate`,
      {
        argument: name,
      },
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

/** What ends an answer, as the generation knows it. */
function endOf({ template, tokenizer }: EmoVerse): GenerationConfig {
  const { end } = INTERNVL_TEMPLATES[template]
  const id = tokenizer.tokenToId(end)
  const ends = [id, tokenizer.eosTokenId].filter((one): one is number => one !== undefined && one !== null)
  if (ends.length === 0) throw new ConfigError(`The tokenizer has no token that ends an answer, as ${end} does`, {})
  const spelled = id === undefined ? tokenizer.encode(end, { addSpecialTokens: false }).inputIds : undefined
  return { eosTokenId: [...new Set(ends)], ...(spelled && { stopSequences: [spelled] }) }
}
