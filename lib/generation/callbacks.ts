import { misuse } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { registerCallback } from '../native/callbacks.js'
import type { ModuleHandle } from '../native/objects.js'
import { setBlockHook } from '../nn/native-module.js'
import { Tensor, tensor } from '../tensor/index.js'
import { inCallback } from '../tensor/tensor.js'

/**
 * Changes the scores of the next token: gets the texts so far, int64 [rows, time], and their scores, float32
 * [rows, vocabSize] on the CPU, and returns the new ones. Rows are prompts, answers or beams, in their order; shorter ones
 * are padded on the left, and behind where they have ended. With beams scores are log probabilities. It must not be async.
 */
export type LogitsProcessor = (inputIds: Tensor, scores: Tensor) => Tensor

/**
 * Ends texts: gets them, int64 [rows, time], with the token that was just chosen, and tells for all rows or for each whether
 * it is the last; as a tensor, bool [rows]. With beams it is asked about one candidate at a time. It must not be async.
 */
export type StoppingCriteria = (inputIds: Tensor) => boolean | readonly boolean[] | Tensor

export interface Callbacks {
  logitsProcessor?: LogitsProcessor | readonly LogitsProcessor[] | undefined
  stoppingCriteria?: StoppingCriteria | readonly StoppingCriteria[] | undefined
}

const childOf = op('voxtorch::module_child')

/** Has a session call the user's functions. */
export function attachCallbacks(session: ModuleHandle, callbacks: Callbacks): void {
  const processors = listOf('logitsProcessor', callbacks.logitsProcessor)
  const criteria = listOf('stoppingCriteria', callbacks.stoppingCriteria)
  if (processors.length > 0) {
    hook(session, 'logits_processor', (inputIds, scores) =>
      processors.reduce((changed, processor) => {
        const result: unknown = processor(inputIds, changed)
        if (result instanceof Tensor) return result
        throw refused('a logitsProcessor', 'return the scores, a tensor', result)
      }, scores),
    )
  }
  if (criteria.length > 0) {
    hook(session, 'stopping_criteria', (inputIds) => {
      const rows = inputIds.size(0)
      const ends = criteria.map((criterion) => decided(criterion(inputIds), rows))
      return ends.reduce((some, one) => some.logicalOr(one))
    })
  }
}

function listOf<F>(key: string, given: F | readonly F[] | undefined): F[] {
  const list = given === undefined || given === null ? [] : ([given].flat() as F[])
  for (const one of list)
    if (typeof one !== 'function') throw misuse('generate', key, 'a function or a list of them', one)
  return list
}

function hook(session: ModuleHandle, part: string, run: (inputIds: Tensor, values: Tensor) => Tensor): void {
  const callback = inCallback(([inputIds, values]) => [run(inputIds as Tensor, values as Tensor)])
  setBlockHook(childOf(session, part) as ModuleHandle, registerCallback(callback))
}

function decided(given: unknown, rows: number): Tensor {
  if (given instanceof Tensor) return given.to('bool').expand([rows])
  const list = typeof given === 'boolean' ? Array<boolean>(rows).fill(given) : given
  if (!Array.isArray(list) || list.length !== rows || list.some((one) => typeof one !== 'boolean')) {
    throw refused('a stoppingCriteria', `return true or false, or a list of ${rows} of them`, given)
  }
  return tensor(list as boolean[], { dtype: 'bool' })
}

function refused(what: string, must: string, given: unknown): ConfigError {
  const isPromise = typeof (given as { then?: unknown } | null)?.then === 'function'
  return new ConfigError(`${what} must ${must}${isPromise ? ', and not a promise: native code waits for it' : ''}`, {})
}
