import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { snakeCase } from '../base/words.js'
import { native } from '../native/addon.js'
import { op, opAsync } from '../native/call.js'
import { handleOf } from '../native/handle.js'
import type { ModuleHandle } from '../native/objects.js'
import type { Tensor } from '../tensor/index.js'
import { attachCallbacks, type Callbacks } from './callbacks.js'
import type { GenerationConfig } from './config.js'

const make = op('voxtorch::generation_session')
const begin = opAsync('voxtorch::generation_begin')
const next = opAsync('voxtorch::generation_step')
const cancel = op('voxtorch::generation_cancel')
const writtenOf = op('voxtorch::generation_written')
const resultOf = opAsync('voxtorch::generation_result')

/** Output of a step for each row. */
export interface Added {
  tokens: number[]
  /** Reason why each row has ended: an index into {@link FINISH_REASONS}. */
  ends: number[]
  logprobs: number[]
  done: boolean
}

export const FINISH_REASONS = [null, 'eos', 'stop', 'length'] as const
/** Reason why an answer ended: `eosTokenId`, `stopSequences` or the length limit; null while it is running. */
export type FinishReason = (typeof FINISH_REASONS)[number]

export interface Result {
  sequences: Tensor
  lengths: number[]
  ends: number[]
  sequencesScores: Tensor | null
  logprobs: Tensor | null
  scores: Tensor | null
  logits: Tensor | null
  attentionMask: Tensor | null
  promptLogits: Tensor | null
  drafted: number
  accepted: number
}

/** Allowed next tokens of each row. */
export type Allowed = number[][]

/** Native generation session. Each call is one job on the executor. `dispose` frees its memory. */
export class GenerationSession {
  readonly #handle: ModuleHandle

  constructor(config: GenerationConfig, callbacks: Callbacks = {}) {
    const { prefixAllowedTokensFn: _, sequenceBias, ...rest } = config
    this.#handle = make(
      JSON.stringify(flat({ ...rest, sequenceBias: sequenceBias?.map(([ids]) => ids) })),
      (sequenceBias ?? []).map(([, bias]) => bias),
    ) as ModuleHandle
    attachCallbacks(this.#handle, callbacks)
  }

  /** Native object, for a batching. */
  get handle(): ModuleHandle {
    return this.#handle
  }

  begin(network: ModuleHandle, inputs: Record<string, unknown>, allowed?: Allowed): Promise<Added> {
    return begin(this.#handle, network, { ...inputs, ...flattened(allowed) })
  }

  step(network: ModuleHandle, allowed?: Allowed, assistant?: ModuleHandle): Promise<Added> {
    if (!allowed && !assistant) return next(this.#handle, network)
    return next(this.#handle, network, { ...flattened(allowed), assistant })
  }

  /** Return the token ids of each row so far, prompt and answer; with beams of each beam. */
  written(): number[][] {
    const { tokens, counts } = writtenOf(this.#handle) as { tokens: number[]; counts: number[] }
    let at = 0
    return counts.map((count) => {
      at += count
      return tokens.slice(at - count, at)
    })
  }

  result(): Promise<Result> {
    return resultOf(this.#handle)
  }

  /** Cancel the session: queued jobs are dropped, and a running one stops within a token. */
  dispose(): void {
    if (!native.isLive(handleOf(this.#handle))) return
    cancel(this.#handle)
    native.release(handleOf(this.#handle))
  }
}

function flattened(allowed: Allowed | undefined): { allowedTokens?: number[]; allowedCounts?: number[] } {
  if (!allowed) return {}
  return { allowedTokens: allowed.flat(), allowedCounts: allowed.map((ids) => ids.length) }
}

/** Convert a configuration for native code: names in snake case, lists of lists as one list and its lengths. */
function flat(config: Record<string, unknown>): Record<string, unknown> {
  const result: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(config)) {
    const name = snakeCase(key)
    if (value === null || value === undefined) continue
    if (LISTS.has(key)) {
      result[name] = (value as number[][]).flat()
      result[`${name}_lengths`] = (value as number[][]).map((ids) => ids.length)
    } else if (key === 'exponentialDecayLengthPenalty') {
      const [start, factor] = value as [number, number]
      Object.assign(result, { decay_start: start, decay_factor: factor })
    } else if (key === 'eosTokenId' || key === 'forcedEosTokenId') {
      result[name] = [value].flat()
    } else {
      result[name] = key === 'earlyStopping' ? String(value) : value
    }
  }
  if (config.doSample === true && config.topK === undefined) result.top_k = 50
  const ends = (result.eos_token_id ?? []) as number[]
  result.pad_token_id ??= ends[0] ?? 0
  if (result.max_length === undefined) result.max_new_tokens ??= 20
  return result
}

const LISTS = new Set(['stopSequences', 'badWordsIds', 'allowedSequences', 'sequenceBias'])

/** Call the user's function for each row. It must be synchronous. */
export function allowedBy(
  fn: NonNullable<GenerationConfig['prefixAllowedTokensFn']>,
  rows: number[][],
  rowsPerPrompt: number,
): Allowed {
  return rows.map((ids, row) => {
    const allowed = fn(Math.floor(row / rowsPerPrompt), ids) as Iterable<number> | null | undefined
    if (typeof allowed !== 'object' || allowed === null || typeof allowed[Symbol.iterator] !== 'function') {
      throw new ConfigError(
        `prefixAllowedTokensFn: expected a function that returns a list of token ids, got ${shown(allowed)}. Make the function synchronous.`,
        {},
      )
    }
    return [...allowed]
  })
}
