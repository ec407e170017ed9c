import { argumentError, requireOptions, shown } from '../../base/check.js'
import { ConfigError, ShapeError } from '../../base/errors.js'
import { native } from '../../native/addon.js'
import { opAsync } from '../../native/call.js'
import { handleOf } from '../../native/handle.js'
import type { ModuleHandle } from '../../native/objects.js'
import { makeNative, withActiveAdapters } from '../../nn/native-module.js'
import { keepForever, noGrad, ops, scope, Tensor } from '../../tensor/index.js'
import type { Mimi } from './mimi.js'

const encode = opAsync('voxtorch::mimi_encode')
const decode = opAsync('voxtorch::mimi_decode')

export interface MimiStreamOptions {
  /** Number of quantizers, from `numSemanticQuantizers`. Default all. */
  numQuantizers?: number
}

/** Return a tensor that outlives the caller's scope. */
const owned = (make: () => Tensor): Tensor => keepForever(scope(make))

/** The past of a stream, and the order of its calls. */
abstract class MimiStream {
  protected readonly model: Mimi
  #state: ModuleHandle | undefined = makeNative('mimi_state', {})
  /** The last call: the next one waits for it, because it continues its state. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(model: Mimi) {
    this.model = model
  }

  /** The native state. @throws ConfigError after `dispose` */
  protected get state(): ModuleHandle {
    if (this.#state) return this.#state
    throw new ConfigError(
      `${this.constructor.name}: expected a stream in use, got one that was disposed. Make another.`,
    )
  }

  /** Run after all earlier calls, whether they failed or not. */
  protected next<T>(run: () => Promise<T>): Promise<T> {
    const result = this.#last.then(() => noGrad(run))
    this.#last = result.catch(() => {})
    return result
  }

  /** Forget what was read: the next call begins a stream. */
  protected restart(): void {
    const { state } = this
    native.release(handleOf(state))
    this.#state = makeNative('mimi_state', {})
  }

  /** Free the memory. Later calls throw. */
  dispose(): void {
    if (this.#state) native.release(handleOf(this.#state))
    this.#state = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Encodes samples as they arrive; see `Mimi.encoderStream`. A call may begin before the one before it has ended. */
export class MimiEncoderStream extends MimiStream {
  readonly #quantizers: number
  /** Samples of a frame that is not whole yet, [batch, channels, fewer than frameSize]. */
  #rest: Tensor | undefined

  constructor(model: Mimi, options: MimiStreamOptions = {}) {
    const where = 'Mimi.encoderStream'
    requireOptions(where, options, ['numQuantizers'])
    super(model)
    const { numQuantizers: most, numSemanticQuantizers: least } = model.config as Record<string, number>
    const { numQuantizers = most as number } = options
    if (!Number.isSafeInteger(numQuantizers) || numQuantizers < (least as number) || numQuantizers > (most as number)) {
      throw new ConfigError(
        `${where}: numQuantizers: expected ${least} to ${most}, got ${shown(numQuantizers)}. Correct it.`,
        { numQuantizers },
      )
    }
    this.#quantizers = numQuantizers
  }

  /**
   * Encode the next samples: [n], or [batch, audioChannels, n] for a batch, of any length, from any device.
   * @returns int64 [batch, numQuantizers, frames], the frames that are whole now, which may be none
   * @throws ShapeError for another number of rows or channels than before
   */
  push(samples: Tensor): Promise<Tensor> {
    const where = `${this.constructor.name}.push`
    if (!(samples instanceof Tensor)) throw argumentError(where, 'samples', 'a tensor', samples)
    const { audioChannels } = this.model.config
    const { device } = this.model.parameters()[0] as Tensor
    // The caller may free the samples while an earlier call runs.
    const input = owned(() => {
      const moved = samples.detach().to({ device })
      return (moved.ndim === 1 ? moved.reshape([1, 1, -1]) : moved).clone()
    })
    if (input.ndim !== 3 || input.size(1) !== audioChannels) {
      input.dispose()
      throw new ShapeError(
        `${where}: samples: expected [n] or [batch, ${audioChannels}, n], got [${samples.shape}]. Pass the next samples.`,
      )
    }
    return this.next(async () => {
      try {
        return await this.#encoded(input)
      } finally {
        input.dispose()
      }
    })
  }

  async #encoded(input: Tensor): Promise<Tensor> {
    const before = this.#rest
    if (before && before.size(0) !== input.size(0)) {
      throw new ShapeError(
        `${this.constructor.name}.push: samples: expected ${before.size(0)} rows as before, got ${input.size(0)}. Use a stream for each batch.`,
      )
    }
    const all = scope(() => (before && before.size(2) > 0 ? ops.cat([before, input], 2) : input.clone()))
    try {
      const whole = all.size(2) - (all.size(2) % this.model.frameSize)
      const codes =
        whole > 0 ? await this.#run(all, whole) : all.newEmpty([all.size(0), this.#quantizers, 0], { dtype: 'int64' })
      this.#rest = owned(() => all.narrow(2, whole, all.size(2) - whole).clone())
      before?.dispose()
      return codes
    } finally {
      all.dispose()
    }
  }

  async #run(samples: Tensor, count: number): Promise<Tensor> {
    return scope(async () => {
      const { audioCodes } = (await encode(withActiveAdapters(this.model), samples.narrow(2, 0, count), {
        numQuantizers: this.#quantizers,
        stream: this.state,
      })) as { audioCodes: Tensor }
      return audioCodes
    })
  }

  /**
   * Encode the samples of an unfinished frame, padded as `Mimi.encode` pads the end of a clip, and begin a new stream.
   * @returns int64 [batch, numQuantizers, 1 or 0]; null if nothing was pushed
   */
  flush(): Promise<Tensor | null> {
    return this.next(async () => {
      const rest = this.#rest
      if (rest === undefined) return null
      const codes =
        rest.size(2) > 0
          ? await this.#run(rest, rest.size(2))
          : rest.newEmpty([rest.size(0), this.#quantizers, 0], { dtype: 'int64' })
      rest.dispose()
      this.#rest = undefined
      this.restart()
      return codes
    })
  }

  override dispose(): void {
    super.dispose()
    this.#rest?.dispose()
    this.#rest = undefined
  }
}

/** Decodes codes as they arrive; see `Mimi.decoderStream`. A call may begin before the one before it has ended. */
export class MimiDecoderStream extends MimiStream {
  /**
   * Decode the next codes.
   * @param codes int64 [batch, quantizers, frames]
   * @returns samples [batch, audioChannels, frames · frameSize]
   * @throws ConfigError for a code outside the codebook
   */
  push(codes: Tensor): Promise<Tensor> {
    const where = `${this.constructor.name}.push`
    if (!(codes instanceof Tensor)) throw argumentError(where, 'codes', 'a tensor', codes)
    const audioCodes = owned(() => codes.detach().clone())
    return this.next(async () => {
      try {
        return await scope(async () => {
          const options = { audioCodes, stream: this.state }
          const { audioValues } = (await decode(withActiveAdapters(this.model), options)) as { audioValues: Tensor }
          return audioValues
        })
      } finally {
        audioCodes.dispose()
      }
    })
  }

  /** Forget what was decoded: the next codes begin another clip. */
  reset(): Promise<void> {
    return this.next(async () => this.restart())
  }
}
