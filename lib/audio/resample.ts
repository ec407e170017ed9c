import { argumentError, requireNumber, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { ops, scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

/**
 * Anti-aliasing filter of a resampler:
 *
 * - `'sinc'`: a Hann-windowed sinc of 6 zero crossings, the default of torchaudio.functional.resample.
 * - `'kaiser'`: the same length with a Kaiser window, torchaudio's `sinc_interp_kaiser`.
 * - `'high'`: the specification of soxr's HQ recipe: flat to 91.3 % of the lower Nyquist frequency, aliasing attenuated by at
 *   least 120 dB. A Kaiser-windowed sinc of 90 zero crossings, about fifteen times the work.
 * - `'auto'`: `'high'` for upsampling, where `'sinc'` leaves mirror images of the upper frequencies, else `'sinc'`.
 */
export type ResampleQuality = 'sinc' | 'kaiser' | 'high' | 'auto'

export const RESAMPLE_QUALITIES: readonly ResampleQuality[] = ['sinc', 'kaiser', 'high', 'auto']

export interface ResampleOptions {
  /** Filter. Default `'sinc'`. */
  quality?: ResampleQuality
  /** Zero crossings of the sinc on each side. */
  lowpassFilterWidth?: number
  /** Cutoff frequency of the sinc, as a fraction of the lower Nyquist frequency. */
  rolloff?: number
  /** Shape of the Kaiser window: higher values give a deeper stop band and a wider transition. */
  beta?: number
}

// A stop band of 125 dB needs beta = 0.1102 (125 - 8.7), and a transition from 0.913 to 1 then needs (125 - 7.95) /
// (2.285 pi 0.087) = 187 samples: 90 zero crossings of a sinc that cuts off in the middle (Kaiser, 1974).
const recipes = {
  sinc: { window: 'hann', lowpassFilterWidth: 6, rolloff: 0.99, beta: 0 },
  kaiser: { window: 'kaiser', lowpassFilterWidth: 6, rolloff: 0.99, beta: 14.769656459379492 },
  high: { window: 'kaiser', lowpassFilterWidth: 90, rolloff: 0.9565, beta: 12.816 },
}

const resampleOp = opAsync('voxtorch::resample')

/**
 * Resample [..., n] to [..., ceil(n · to / from)], float32 (float64 for float64), on the device of the input. Without delay;
 * samples before and after the clip count as zero. Differentiable. The result equals torchaudio.functional.resample with the
 * same options. Runs on the executor.
 *
 * Method: Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/.
 *
 * @throws ConfigError for rates that are not positive integers; OperatorError for a pair of rates that needs a filter of more
 *   than 2^24 weights, because the rates have no large common factor
 */
export async function resample(
  samples: Tensor,
  from: number,
  to: number,
  options: ResampleOptions = {},
): Promise<Tensor> {
  requireSamples('resample', samples)
  return resampleOp(samples, from, to, recipeOf('resample', from, to, options))
}

export function requireSamples(where: string, samples: unknown): void {
  if (!(samples instanceof Tensor)) throw argumentError(where, 'samples', 'a tensor', samples)
}

function recipeOf(where: string, from: number, to: number, options: ResampleOptions) {
  requireWhole(where, 'from', from, 1)
  requireWhole(where, 'to', to, 1)
  requireOptions(where, options, ['quality', 'lowpassFilterWidth', 'rolloff', 'beta'])
  const { quality = 'sinc', ...changes } = options
  requireOneOf(where, 'quality', quality, RESAMPLE_QUALITIES)
  const recipe = { ...recipes[quality !== 'auto' ? quality : to > from ? 'high' : 'sinc'] }
  for (const name of ['lowpassFilterWidth', 'rolloff', 'beta'] as const) {
    const value = changes[name]
    if (value === undefined) continue
    requireNumber(where, name, value)
    recipe[name] = value
  }
  return recipe
}

/**
 * Resampler of a clip that arrives in parts. The concatenated results of `push` and `flush` equal `resample` of the whole clip
 * bit for bit. Keeps the last few samples until `flush` or `dispose`.
 */
export class Resampler {
  readonly #from: number
  readonly #to: number
  readonly #recipe: ReturnType<typeof recipeOf>
  /** Half the filter length, in input samples. */
  readonly #reach: number
  /** Input that later outputs need; `#start` is the position of its first sample in the clip. */
  #tail: Tensor | undefined
  #start = 0
  #end = 0
  #done = 0
  #busy = false

  constructor(from: number, to: number, options: ResampleOptions = {}) {
    this.#recipe = recipeOf('Resampler', from, to, options)
    const factor = commonFactor(from, to)
    this.#from = from / factor
    this.#to = to / factor
    const cutoff = Math.min(this.#from, this.#to) * this.#recipe.rolloff
    this.#reach = (this.#recipe.lowpassFilterWidth * this.#from) / cutoff
  }

  /** Resample [..., n] and return [..., m], the outputs that need no later input; m may be 0. Await each call before the next. */
  async push(samples: Tensor): Promise<Tensor> {
    requireSamples('Resampler.push', samples)
    return this.#next(samples, (end) => Math.floor(((end - this.#reach - 2) * this.#to) / this.#from))
  }

  /** Return the remaining outputs. The next `push` starts a new clip. */
  async flush(): Promise<Tensor> {
    const tail = this.#tail
    if (tail === undefined) throw new ConfigError('Resampler.flush: expected samples, got none. Call push first.')
    const last = await this.#next(undefined, (end) => Math.ceil((end * this.#to) / this.#from))
    this.dispose()
    return last
  }

  /** Discard the pushed samples. */
  dispose(): void {
    this.#tail?.dispose()
    this.#tail = undefined
    this.#start = 0
    this.#end = 0
    this.#done = 0
  }

  async #next(samples: Tensor | undefined, until: (end: number) => number): Promise<Tensor> {
    if (this.#busy)
      throw new ConfigError(
        'Resampler: expected one call at a time, got a second one. Await each call before the next.',
      )
    this.#busy = true
    try {
      return await scope(async () => {
        const before = this.#tail
        const known =
          samples === undefined || before === undefined ? (samples ?? before!) : ops.cat([before, samples], -1)
        const end = this.#end + (samples?.size(-1) ?? 0)
        const count = Math.max(0, until(end) - this.#done)
        const outputs: Tensor = await resampleOp(known, this.#from, this.#to, {
          ...this.#recipe,
          start: this.#start,
          first: this.#done,
          count,
        })
        const done = this.#done + count
        const oldest = Math.floor((done * this.#from) / this.#to - this.#reach) - 1
        const drop = Math.min(Math.max(0, oldest - this.#start), end - this.#start)
        this.#tail = keepForever(
          known
            .narrow(-1, drop, end - this.#start - drop)
            .clone()
            .detach(),
        )
        before?.dispose()
        this.#start += drop
        this.#end = end
        this.#done = done
        return outputs
      })
    } finally {
      this.#busy = false
    }
  }
}

function commonFactor(a: number, b: number): number {
  return b === 0 ? a : commonFactor(b, a % b)
}
