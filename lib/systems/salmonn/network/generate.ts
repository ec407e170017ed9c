import { requireRecord } from '../../../base/arguments.js'
import { argumentError, requireSignal } from '../../../base/check.js'
import type { GenerationConfig } from '../../../generation/config.js'
import { type GenerateOptions, generate, stream } from '../../../generation/generate.js'
import { eachStep } from '../../../generation/generators.js'
import type { AudioEncoding } from '../../../kit/audio-encoding/encode.js'
import { clipKey } from '../../../kit/audio-encoding/frames.js'
import { type EmbeddedRows, embedRows } from '../../../kit/embed-rows.js'
import { cat, noGrad, ones, scope, type Tensor } from '../../../tensor/index.js'
import { type Read, SalmonnCache } from './cache.js'
import { isEncoded } from './clips.js'
import type { Salmonn, SalmonnOptions, SalmonnQuestion } from './network.js'
import { AUDIO } from './prompt.js'

/** Options of generation: the generation configuration, and SALMONN's own options. */
export interface SalmonnGenerateOptions extends GenerationConfig, SalmonnOptions, GenerateOptions {
  /** Whether to leave special tokens such as `</s>` out of the text. Default true. */
  skipSpecialTokens?: boolean
  /** Cache of earlier turns, for a single prompt; this answer extends it. */
  cache?: SalmonnCache
}

export interface SalmonnAnswers {
  /** Answers in the order of the prompts; with `numReturnSequences` several for each. */
  texts: string[]
  /** Token ids, end tokens included. */
  tokens: number[][]
  /** Number of tokens of each prompt, audio included. */
  promptTokens: number[]
}

/** Output of a step. The text is empty while a character is incomplete. */
export interface SalmonnStep {
  text: string
  tokens: number[]
  /** Number of tokens of the prompt, audio and earlier turns included. */
  promptTokens: number
}

/** Split {@link SalmonnGenerateOptions} by receiver. */
function splitOptions(model: Salmonn, options: SalmonnGenerateOptions) {
  requireRecord('Salmonn.generate', options)
  const { compat, overlap, loraScale, skipSpecialTokens = true, cache, ...rest } = options
  const { signal, generator, uniforms, maxNewTokensPerRow, batching, ...given } = rest
  const encoding = model.encoding('Salmonn.generate', { compat, overlap })
  requireSignal('Salmonn.generate', signal)
  if (cache !== undefined && !(cache instanceof SalmonnCache)) {
    throw argumentError('Salmonn.generate', 'cache', 'a SalmonnCache', cache)
  }
  const control = Object.fromEntries(
    Object.entries({ signal, generator, uniforms, maxNewTokensPerRow, batching }).filter(
      ([, value]) => value !== undefined,
    ),
  ) as GenerateOptions
  const set = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const base = { ...ends(model), ...model.generationConfig }
  const config: GenerationConfig = { ...base, ...set }
  if (config.maxLength != null && set.maxNewTokens == null) delete config.maxNewTokens
  config.suppressTokens = [...new Set([...(config.suppressTokens ?? []), ...neverWritten(model)])]
  if (config.suppressTokens.length === 0) delete config.suppressTokens
  return { encoding, loraScale, skipSpecialTokens, cache, control, config }
}

/** Return the end token of the tokenizer, since old configurations of Vicuna have wrong ids. */
function ends(model: Salmonn): GenerationConfig {
  const { eosTokenId } = model.tokenizer
  return eosTokenId === null ? {} : { eosTokenId }
}

/** Return ids without text: an added padding token, and the padding of the vocabulary. */
function neverWritten(model: Salmonn): number[] {
  const { tokenizer, llm } = model
  const { vocabSize = 32000 } = llm.config
  const { padTokenId, eosTokenId, unkTokenId, bosTokenId } = tokenizer
  const highest = 1 + Math.max(-1, ...tokenizer.vocabulary().values())
  const rows = Array.from({ length: Math.max(0, vocabSize - highest) }, (_, i) => highest + i)
  const isOther = padTokenId !== null && ![eosTokenId, unkTokenId, bosTokenId].includes(padTokenId)
  if (isOther && padTokenId < vocabSize) rows.push(padTokenId)
  return rows
}

export async function generateSalmonn(
  model: Salmonn,
  prompts: readonly SalmonnQuestion[],
  options: SalmonnGenerateOptions,
): Promise<SalmonnAnswers> {
  if (!Array.isArray(prompts) || prompts.length === 0) {
    throw argumentError('Salmonn.generate', 'prompts', 'a list of prompts', prompts)
  }
  const { encoding, loraScale, skipSpecialTokens, cache, control, config } = splitOptions(model, options)
  if (cache && prompts.length > 1)
    throw argumentError('Salmonn.generate', 'cache', 'used with a single prompt', prompts.length)
  control.signal?.throwIfAborted()
  const { tokens, promptTokens } = await scope(() =>
    noGrad(async () => {
      if (cache) return withCache(model, prompts[0] as SalmonnQuestion, cache, { encoding, loraScale, control, config })
      const { rows, audio } = await model.read(prompts, encoding)
      const inputs = embedRows(model.llm, rows, { placeholder: AUDIO, embeddings: audio, side: 'left' })
      const { tokens } = await model.scaled(loraScale, () => generate(model.llm, { ...inputs }, config, control))
      return { tokens, promptTokens: rows.map(({ length }) => length) }
    }),
  )
  return { texts: tokens.map((ids) => model.tokenizer.decode(ids, { skipSpecialTokens })), tokens, promptTokens }
}

export async function* streamSalmonn(
  model: Salmonn,
  prompt: SalmonnQuestion,
  options: SalmonnGenerateOptions,
): AsyncGenerator<SalmonnStep, void, void> {
  const { encoding, loraScale, skipSpecialTokens, cache, control, config } = splitOptions(model, options)
  if ((config.numBeams ?? 1) > 1) {
    const { texts, tokens, promptTokens } = await generateSalmonn(model, [prompt], options)
    yield { text: texts[0] as string, tokens: tokens[0] as number[], promptTokens: promptTokens[0] as number }
    return
  }
  control.signal?.throwIfAborted()
  const decoder = model.tokenizer.decodeStream({ skipSpecialTokens })
  const prepared = await prepare(model, prompt, cache, { encoding, loraScale })
  const written: number[] = []
  const promptTokens = prepared.inputs.attentionMask.size(1)
  try {
    const inputs = { ...prepared.inputs, ...(cache && { cache: cache.kv }) }
    const steps = stream(model.llm, inputs, config, control)
    for await (const { tokens } of eachStep(steps, (step) => model.scaled(loraScale, step))) {
      const [token] = tokens
      if (token === undefined || token === null) continue
      const text = decoder.push(token)
      written.push(token)
      yield { text, tokens: [token], promptTokens }
    }
    const rest = decoder.end()
    if (rest !== '') yield { text: rest, tokens: [], promptTokens }
  } finally {
    prepared.inputs.inputsEmbeds.dispose()
    prepared.inputs.attentionMask.dispose()
    await prepared.done(written)
  }
}

interface Settings {
  encoding: AudioEncoding
  loraScale: number | undefined
}

/** Return the inputs of a prompt after its cached prefix, and a function to call after the answer. */
async function prepare(
  model: Salmonn,
  prompt: SalmonnQuestion,
  cache: SalmonnCache | undefined,
  settings: Settings,
): Promise<{ inputs: EmbeddedRows; done: (written: number[]) => Promise<void> }> {
  const { encoding, loraScale } = settings
  const embedded = (row: number[], audio: Tensor | null) =>
    embedRows(model.llm, [row], { placeholder: AUDIO, embeddings: audio, side: 'left' })
  if (!cache) {
    const inputs = await scope(() =>
      noGrad(async () => {
        const { rows, audio } = await model.read([prompt], encoding)
        return embedded(rows[0] as number[], audio)
      }),
    )
    return { inputs, done: async () => {} }
  }
  const segments = await model.segments(prompt)
  const manner = encoding.compat ?? encoding.overlap
  let read: Read[] = []
  const left = (held: Read[]) => cache.keep(held).finally(() => cache.end())
  const inputs = await scope(() =>
    noGrad(async () => {
      const clips = await model.audios(prompt)
      const keys: string[] = []
      for (const clip of clips) keys.push(isEncoded(clip) ? tensorKey(clip) : `${manner}:${await clipKey(clip)}`)
      cache.begin(`${loraScale ?? ''}`, keys)
      try {
        const fresh = new Map<string, Tensor>()
        for (const [i, clip] of clips.entries()) {
          const key = keys[i] as string
          if (!isEncoded(clip) && !cache.clip(key)) fresh.set(key, clip)
        }
        const encoded = await model.embeddingsOf([...fresh.values()], encoding)
        for (const [i, key] of [...fresh.keys()].entries()) cache.keepClip(key, (encoded[i] as Tensor).clone())
        const embeddings = clips.map((clip, i) => (isEncoded(clip) ? clip : (cache.clip(keys[i] as string) as Tensor)))
        const row = model.rowOf(segments, embeddings, 'the prompt')
        const tokenKeys = embeddings.flatMap((clip, i) =>
          Array.from({ length: clip.size(0) }, (_, j) => `${keys[i]}/${j}`),
        )
        let next = 0
        read = row.map((id) => (id === AUDIO ? (tokenKeys[next++] as string) : id))
        const past = await cache.matching(read)
        const rest = row.slice(past)
        const used = rest.filter((id) => id === AUDIO).length
        const { inputsEmbeds } = embedded(rest, used === 0 ? null : lastRows(embeddings, used))
        // Cached positions are not padding.
        const attentionMask = ones([1, row.length], { dtype: 'int64', device: inputsEmbeds.device })
        return { inputsEmbeds, attentionMask }
      } catch (error) {
        await left([])
        throw error
      }
    }),
  )
  // The last token is generated but not in the cache.
  return { inputs, done: (written) => left([...read, ...written.slice(0, -1)]) }
}

/** Generate with a cache. With beams the cache stays as it was after the prompt, whose last token is part of the search. */
async function withCache(
  model: Salmonn,
  prompt: SalmonnQuestion,
  cache: SalmonnCache,
  { control, config, ...settings }: Settings & { control: GenerateOptions; config: GenerationConfig },
): Promise<Omit<SalmonnAnswers, 'texts'>> {
  const prepared = await prepare(model, prompt, cache, settings)
  let written: number[] = []
  try {
    const { inputsEmbeds, attentionMask } = prepared.inputs
    const several = (config.numBeams ?? 1) > 1 || (config.numReturnSequences ?? 1) > 1
    const time = inputsEmbeds.size(1)
    const result = await model.scaled(settings.loraScale, async () => {
      let rest = inputsEmbeds
      if (several && time > 1) {
        const most = attentionMask.narrow(1, 0, attentionMask.size(1) - 1)
        const first = { inputsEmbeds: inputsEmbeds.narrow(1, 0, time - 1), attentionMask: most, logitsToKeep: 1 }
        await model.llm.forward({ ...first, cache: cache.kv })
        rest = inputsEmbeds.narrow(1, time - 1, 1)
      }
      return generate(model.llm, { inputsEmbeds: rest, attentionMask, cache: cache.kv }, config, control)
    })
    if (!several) written = result.tokens[0] as number[]
    return { tokens: result.tokens, promptTokens: [attentionMask.size(1)] }
  } finally {
    await prepared.done(written)
  }
}

/** Return the last rows of embeddings, which are not cached yet. */
const lastRows = (embeddings: Tensor[], count: number): Tensor => {
  const all = embeddings.length === 1 ? (embeddings[0] as Tensor) : cat(embeddings, 0)
  return all.narrow(0, all.size(0) - count, count)
}

const names = new WeakMap<Tensor, string>()
let named = 0

/** Return the key of a tensor clip, by object identity. */
function tensorKey(clip: Tensor): string {
  const name = names.get(clip) ?? `tensor ${++named}`
  names.set(clip, name)
  return name
}
