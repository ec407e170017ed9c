import { optionsOf } from '../base/arguments.js'
import { abortable, argumentError, requireSignal, requireWhole } from '../base/check.js'
import { ConfigError, InsufficientMemoryError } from '../base/errors.js'
import { Turns } from '../base/turn.js'
import { didYouMean, shortened } from '../base/words.js'
import { requireTensorInputs } from '../nn/check.js'
import { NativeModule, withActiveAdapters } from '../nn/native-module.js'
import { type Generator, noGrad, scope, Tensor } from '../tensor/index.js'
import {
  type BatchedSequence,
  type BatchedToken,
  bytesPerToken,
  ContinuousBatching,
  enqueueIn,
  hasAdaptersOf,
  networkOf,
} from './batching.js'
import type { LogitsProcessor, StoppingCriteria } from './callbacks.js'
import { type GenerationConfig, generationConfig } from './config.js'
import { type KvCache, nativeCacheOf } from './kv-cache.js'
import { type Added, allowedBy, FINISH_REASONS, type FinishReason, GenerationSession } from './session.js'

/** Inputs of generation. */
export interface GenerateInputs {
  /** Token ids [batch, time], int64. Shorter rows are padded on the left. */
  inputIds?: Tensor | null
  /** [batch, time], with a cache [batch, cache.length + time]: 1 for real tokens and 0 for padding. */
  attentionMask?: Tensor | null
  /** [batch, time, hiddenSize], used in place of `inputIds`. If both are set, penalties use the ids. */
  inputsEmbeds?: Tensor | null
  /**
   * int64 [1, time], with `inputsEmbeds` in a `batching`: a number for the content of each position, the token's id for a token's embedding.
   * Prompts whose first numbers are equal share a prefix. Default: embeddings are not shared.
   */
  prefixKeys?: Tensor | null
  /**
   * Cache of a prefix, such as a long prompt or an audio clip; the inputs follow it. All processed tokens except the last generated one are
   * added to it, so the next turn begins with that token. With several answers per prompt the cache does not change.
   */
  cache?: KvCache | null
  /** int64 [batch, any]: ids of the prefix for penalties, such as those of the cache. */
  contextIds?: Tensor | null
  /** Encoder output [batch, frames, dim], for networks with cross-attention. */
  encoderHiddenStates?: Tensor | null
  /** Mask of the encoder output, [batch, frames]. */
  encoderAttentionMask?: Tensor | null
  /**
   * Keys and values of the encoder's states in place of those states, or an empty cache to fill with them, for several texts about the same
   * audio.
   */
  encoderCache?: KvCache | null
  /** With `guidanceScale`: negative prompt, int64 [batch, any]. Default: the last token of each prompt. */
  negativePromptIds?: Tensor | null
  /** [batch, any]: 1 for real tokens and 0 for padding on the left. */
  negativePromptAttentionMask?: Tensor | null
  /** With an `assistantModel` with its own encoder: the states of that encoder, [1, frames, dim]. */
  assistantEncoderHiddenStates?: Tensor | null
}

export interface GenerateOptions {
  /** Signal that stops generation within one token; pending promises reject with its reason. */
  signal?: AbortSignal
  /** Random generator on the CPU. Default: the CPU's default generator, which `manualSeed` seeds. */
  generator?: Generator
  /**
   * Random numbers in place of a generator, in [0, 1): [steps, rows], with beams [steps, prompts, (1 + ends, at least 2) * numBeams]. Each
   * selects the first token, in order of ids, whose cumulative probability exceeds it.
   */
  uniforms?: Tensor
  /** Maximum number of new tokens of each prompt, in addition to the configuration's limits; not with beams. */
  maxNewTokensPerRow?: number[]
  /** Functions that change scores, in order, after the configuration's processors and before top-k and similar filters. */
  logitsProcessor?: LogitsProcessor | readonly LogitsProcessor[]
  /** Functions that end rows, with the reason 'stop'. */
  stoppingCriteria?: StoppingCriteria | readonly StoppingCriteria[]
  /**
   * Smaller network with the same vocabulary for speculative decoding: it drafts tokens, which this one verifies in one pass (Leviathan et
   * al. 2022, https://arxiv.org/abs/2211.17192). Greedy output in float32 and float64 is that without it; sampled output has the same
   * distribution. In bfloat16 and float16 a pass over several tokens rounds differently: greedy output may differ if the top two logits
   * are within a few roundings. One row, without beams.
   */
  assistantModel?: GenerativeModule
  /** Batch that generates this sequence together with others of the same network; see {@link ContinuousBatching}. */
  batching?: ContinuousBatching
  /** Index of an input token, from 0, whose next-token logits are returned as `promptLogits`. */
  promptLogitsAt?: number
}

/** One generated token of each row. */
export interface GenerateStep {
  /** Step, from 0. */
  step: number
  /** The new token of each row; null for rows that have ended. */
  tokens: (number | null)[]
  /** Reason why each row has ended, at this token or before; null for running rows. */
  finishReasons: FinishReason[]
  /** With `outputLogprobs`: the log probability of each token. */
  logprobs?: number[]
  /** With a `batching`: number of prompt tokens that came from its prefix cache. */
  cachedTokens?: number
}

export interface GenerateOutput {
  /** int64 [answers, prompt + longest answer], on the CPU, padded on the right; without `inputIds` only the answers. */
  sequences: Tensor
  /** Token ids of the answers, without prompt and padding; in the order of the prompts, best first. */
  tokens: number[][]
  finishReasons: FinishReason[]
  /** With beams: score of each answer, [answers]. */
  sequencesScores: Tensor | null
  /** With `outputLogprobs`: [answers, longest answer], 0 after the end. */
  logprobs: Tensor | null
  /** With `outputScores`: [steps, rows, vocabSize], a row for each prompt, answer or beam. */
  scores: Tensor | null
  /** With `outputLogits`: raw logits of the same shape. */
  logits: Tensor | null
  /** With a cache: its mask [batch, cache.length], for the next turn's `attentionMask`. */
  attentionMask: Tensor | null
  /** With `promptLogitsAt`: raw logits, float32 [batch, vocabSize]. */
  promptLogits: Tensor | null
  /** With an `assistantModel` or `promptLookupNumTokens`: numbers of drafted and of accepted tokens. */
  guesses?: { drafted: number; accepted: number }
  /** With a `batching`: number of prompt tokens that came from its prefix cache. */
  cachedTokens?: number
}

/** A network that generates; `generationConfig` has its published settings. */
export type GenerativeModule = NativeModule & { generationConfig: GenerationConfig }

/**
 * Generate from the inputs until every row has ended. Other work on the executor runs between tokens. Dropout is active in a network in
 * training mode, as in transformers.
 * @throws ConfigError for an invalid or contradictory configuration
 */
export async function generate(
  model: GenerativeModule,
  inputs: GenerateInputs,
  config: GenerationConfig = {},
  options: GenerateOptions = {},
): Promise<GenerateOutput> {
  const run = new Run(model, inputs, config, options)
  try {
    while (!(await run.next()).done);
    return await run.output()
  } finally {
    run.dispose()
  }
}

/**
 * Generate token by token. Leaving the loop stops the generation and frees its memory.
 * @throws ConfigError with beams, whose output is known only at the end
 */
export async function* stream(
  model: GenerativeModule,
  inputs: GenerateInputs,
  config: GenerationConfig = {},
  options: GenerateOptions = {},
): AsyncGenerator<GenerateStep, void, void> {
  const run = new Run(model, inputs, config, options)
  try {
    if ((run.config.numBeams ?? 1) > 1) {
      throw new ConfigError(
        `stream: expected numBeams 1, since beams have no output before the end, got ${run.config.numBeams}. Use generate.`,
        { ...run.config },
      )
    }
    let before: number[] = []
    for (let step = 0; ; step++) {
      const { tokens, ends, logprobs, done } = await run.next()
      const { cachedTokens } = run
      yield {
        step,
        tokens: tokens.map((token, row) => ((before[row] ?? 0) === 0 ? token : null)),
        finishReasons: ends.map((end) => FINISH_REASONS[end] as FinishReason),
        ...(run.config.outputLogprobs ? { logprobs } : {}),
        ...(cachedTokens === undefined ? {} : { cachedTokens }),
      }
      if (done) return
      before = ends
    }
  } finally {
    run.dispose()
  }
}

/** A generation from start to end. */
class Run {
  readonly config: GenerationConfig
  readonly #model: GenerativeModule
  readonly #inputs: GenerateInputs
  readonly #options: GenerateOptions
  readonly #session: GenerationSession
  readonly #turns = new Turns()
  #begun = false
  #sequence: BatchedSequence | undefined
  /** Number of prompt tokens from the prefix cache; undefined without a batching. */
  cachedTokens: number | undefined

  constructor(model: GenerativeModule, inputs: GenerateInputs, config: GenerationConfig, options: GenerateOptions) {
    requireTensorInputs('generate', inputs)
    checkKeys('inputs', inputs, INPUTS)
    checkKeys('options', optionsOf(options, 'generate'), OPTIONS)
    this.config = generationConfig(config, model.generationConfig)
    warnOfUnusedSampling(config, this.config)
    this.#model = model
    this.#inputs = inputs
    this.#options = options
    const { promptLogitsAt } = options
    if (promptLogitsAt !== undefined) requireWhole('generate', 'promptLogitsAt', promptLogitsAt)
    requireSignal('generate', options.signal)
    options.signal?.throwIfAborted()
    const { logitsProcessor, stoppingCriteria, assistantModel } = options
    if (assistantModel !== undefined && !(assistantModel instanceof NativeModule)) {
      throw argumentError('generate', 'assistantModel', 'a network that generates', assistantModel)
    }
    checkBatching(model, options.batching)
    if (inputs.prefixKeys != null && options.batching === undefined) {
      throw new ConfigError('generate: prefixKeys: expected them with a batching, got none. Leave them out.', {})
    }
    this.#session = new GenerationSession(this.config, { logitsProcessor, stoppingCriteria })
  }

  async next(): Promise<Added> {
    const { signal, batching } = this.#options
    await this.#turns.pass()
    signal?.throwIfAborted()
    if (!this.#begun) requireMemory(this.#model, this.#inputs, this.config)
    if (!this.#begun && batching && this.#canShareBatch(batching)) this.#joinBatch(batching)
    if (this.#sequence) {
      const token = await abortable<BatchedToken>(signal, this.#sequence.next())
      this.cachedTokens = token.cachedTokens
      return token
    }
    return abortable(
      signal,
      noGrad(() => (this.#begun ? this.#step() : this.#begin())),
    )
  }

  /** Return whether the call is a single sequence that can run in the batching. */
  #canShareBatch(batching: ContinuousBatching): boolean {
    const { inputIds, inputsEmbeds, encoderHiddenStates, encoderCache } = this.#inputs
    const { numBeams = 1, numReturnSequences = 1, guidanceScale, promptLookupNumTokens } = this.config
    const { assistantModel, promptLogitsAt } = this.#options
    const needsOwnPasses =
      (inputsEmbeds ?? inputIds)?.shape[0] !== 1 ||
      numBeams > 1 ||
      numReturnSequences > 1 ||
      (guidanceScale ?? 1) !== 1 ||
      promptLookupNumTokens != null ||
      [assistantModel, promptLogitsAt, encoderHiddenStates, encoderCache].some((given) => given != null)
    return !needsOwnPasses && hasAdaptersOf(batching)
  }

  #joinBatch(batching: ContinuousBatching): void {
    this.#begun = true
    const { inputIds, attentionMask, inputsEmbeds, cache, contextIds, prefixKeys } = this.#inputs
    const { generator, uniforms, maxNewTokensPerRow: limits } = this.#options
    const { prefixAllowedTokensFn: fn, maxNewTokens, maxLength } = this.config
    const kv = cache ? nativeCacheOf(cache) : undefined
    const prompt = (inputsEmbeds ?? inputIds)?.shape[1] ?? 0
    const most = Math.min(maxNewTokens ?? (maxLength == null ? 20 : maxLength - prompt), limits?.[0] ?? Infinity)
    let first: number[][] | undefined = fn ? this.#prompts() : undefined
    this.#sequence = enqueueIn(batching, {
      session: this.#session,
      inputs: present({
        ...{ inputIds, attentionMask, inputsEmbeds, contextIds, prefixKeys },
        ...{ generator, uniforms, limits, cache: kv },
      }),
      tokens: (cache?.length ?? 0) + prompt + Math.max(0, most),
      allowed: fn
        ? () => {
            const rows = first ?? this.#session.written()
            first = undefined
            return allowedBy(fn, rows, 1)
          }
        : undefined,
    })
  }

  #begin(): Promise<Added> {
    this.#begun = true
    const { cache, encoderCache, prefixKeys: _, ...inputs } = present(this.#inputs)
    const {
      generator,
      uniforms,
      maxNewTokensPerRow: limits,
      promptLogitsAt: promptPlace,
      assistantModel,
    } = this.#options
    const caches = {
      cache: cache && nativeCacheOf(cache as KvCache),
      encoderCache: encoderCache && nativeCacheOf(encoderCache as KvCache),
    }
    const assistant = assistantModel && withActiveAdapters(assistantModel)
    const rest = present({ generator, uniforms, limits, promptPlace, assistant, ...caches })
    const { prefixAllowedTokensFn: fn } = this.config
    const allowed = fn ? allowedBy(fn, this.#prompts(), this.#rowsPerPrompt) : undefined
    return this.#session.begin(withActiveAdapters(this.#model), { ...inputs, ...rest }, allowed)
  }

  #step(): Promise<Added> {
    const { assistantModel } = this.#options
    return this.#session.step(
      withActiveAdapters(this.#model),
      this.#allowed(),
      assistantModel && withActiveAdapters(assistantModel),
    )
  }

  #allowed(): number[][] | undefined {
    const { prefixAllowedTokensFn: fn } = this.config
    return fn ? allowedBy(fn, this.#session.written(), this.#rowsPerPrompt) : undefined
  }

  get #rowsPerPrompt(): number {
    return (this.config.numBeams ?? 1) > 1 ? (this.config.numBeams as number) : (this.config.numReturnSequences ?? 1)
  }

  /** Return the token ids of each row before the first step. */
  #prompts(): number[][] {
    const { inputIds, inputsEmbeds, contextIds, attentionMask } = this.#inputs
    const batch = (inputIds ?? inputsEmbeds)?.shape[0] ?? 0
    const ids = listsOf(inputIds)
    const context = listsOf(contextIds)
    const mask = listsOf(attentionMask)
    return Array.from({ length: batch * this.#rowsPerPrompt }, (_, i) => {
      const row = Math.floor(i / this.#rowsPerPrompt)
      const text = ids?.[row] ?? []
      const real = mask?.[row]?.slice(-text.length || mask[row]?.length) ?? []
      const start = real.findIndex((one) => one !== 0)
      return [...(context?.[row] ?? []), ...text.slice(Math.max(0, start))]
    })
  }

  async output(): Promise<GenerateOutput> {
    const { lengths, ends, drafted, accepted, ...tensors } = await this.#session.result()
    const guesses = this.#options.assistantModel || this.config.promptLookupNumTokens != null
    const width = this.#inputs.inputIds?.shape[1] ?? 0
    const rows = listsOf(tensors.sequences) as number[][]
    return {
      ...tensors,
      tokens: rows.map((row, i) => row.slice(width, width + (lengths[i] as number))),
      finishReasons: ends.map((end) => FINISH_REASONS[end] as FinishReason),
      ...(guesses ? { guesses: { drafted, accepted } } : {}),
      ...(this.cachedTokens === undefined ? {} : { cachedTokens: this.cachedTokens }),
    }
  }

  dispose(): void {
    this.#sequence?.leave()
    this.#session.dispose()
  }
}

const warned = new Set<string>()

/** Warn once about an option of sampling that has no effect, as transformers does. */
function warnOfUnusedSampling(given: GenerationConfig, { doSample = false }: GenerationConfig): void {
  if (doSample || given.doSample === false) return
  for (const [name, neutral] of [
    ['temperature', [0, 1]],
    ['topP', [1]],
    ['topK', [0, 1, 50]],
  ] as const) {
    const value = given[name]
    if (value == null || (neutral as readonly number[]).includes(value) || warned.has(name)) continue
    warned.add(name)
    process.emitWarning(`generate: ${name} has no effect without doSample. Set doSample: true to sample.`)
  }
}

/** Maximum number of tokens that a cache allocates in advance. */
const MOST_AHEAD = 1024

/** @throws InsufficientMemoryError if keys, values and scores of the rows exceed the available memory */
function requireMemory(
  model: GenerativeModule,
  { inputIds, inputsEmbeds, cache }: GenerateInputs,
  config: GenerationConfig,
) {
  const read: unknown = inputsEmbeds ?? inputIds
  // Native code reports values that are not tensors.
  if (!(read instanceof Tensor)) return
  const [batch = 1, time = 1] = read.shape
  const rows = batch * Math.max(config.numBeams ?? 1, config.numReturnSequences ?? 1)
  if (rows === 1) return
  const [weight] = model.parameters()
  if (weight?.device.startsWith('cpu') === false) return
  const tokens = (cache?.length ?? 0) + time + Math.min(MOST_AHEAD, config.maxNewTokens ?? config.maxLength ?? 20)
  const { vocabSize = 0 } = ((model as { config?: { vocabSize?: number } }).config ?? {}) as { vocabSize?: number }
  const bytes = rows * (tokens * bytesPerToken(model) + 8 * vocabSize)
  const available = process.availableMemory()
  if (bytes <= available) return
  throw new InsufficientMemoryError(
    `generate: expected rows that fit into ${available} bytes of memory, got ${rows} of ${tokens} tokens, which need ${bytes}. Lower the batch, numBeams, numReturnSequences or maxNewTokens.`,
    { rows, tokens, bytes, available },
  )
}

const INPUTS = [
  'inputIds',
  'attentionMask',
  'inputsEmbeds',
  'prefixKeys',
  'cache',
  'contextIds',
  'encoderHiddenStates',
  'encoderAttentionMask',
  'encoderCache',
  'negativePromptIds',
  'negativePromptAttentionMask',
  'assistantEncoderHiddenStates',
]
const OPTIONS = [
  'signal',
  'generator',
  'uniforms',
  'maxNewTokensPerRow',
  'promptLogitsAt',
  'logitsProcessor',
  'stoppingCriteria',
  'assistantModel',
  'batching',
]

function checkBatching(model: GenerativeModule, batching: ContinuousBatching | undefined): void {
  if (batching === undefined) return
  if (!(batching instanceof ContinuousBatching)) {
    throw argumentError('generate', 'batching', 'a ContinuousBatching', batching)
  }
  if (networkOf(batching) !== model)
    throw argumentError('generate', 'batching', 'one that was created for this network', batching)
}

function checkKeys(what: string, given: object, known: string[]): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    throw new ConfigError(`generate: expected known ${what}, got '${shortened(key)}'${didYouMean(key, known)}`, { key })
  }
}

const present = (given: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(given).filter(([, value]) => value !== null && value !== undefined))

function listsOf(tensor: Tensor | null | undefined): number[][] | undefined {
  if (!tensor) return undefined
  if (tensor.shape.length !== 2) throw argumentError('generate', 'inputs', 'matrices [batch, time]', tensor)
  return scope(() => (tensor.to('int64').toArray() as unknown[][]).map((row) => row.map(Number)))
}
