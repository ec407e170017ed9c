import { requireObject, requireOptions, requireString } from '../../../base/check.js'
import { withEvalMode } from '../../../nn/index.js'
import { scope, type Tensor } from '../../../tensor/index.js'
import { dstCollate } from './collate.js'
import { checkDstConfig } from './config.js'
import { dstSamples } from './dataset.js'
import { type DstAudio, type SlotValues, slotValues } from './dialog.js'
import { predictDst } from './evaluate.js'
import { DstFeaturizer, dstSpecialIds } from './features.js'
import type { SpectraForDst } from './network.js'
import { type DstDecodeOptions, type DstPrediction, nextDstState } from './state.js'
import { dstWords, normalizeDstLabel } from './text.js'

export interface DstTrackerOptions extends DstDecodeOptions {
  model: SpectraForDst
  maxLength?: number
}

/** A turn: text, and speech as a file, as samples at 16 kHz with mean 0 and variance 1, or none. */
export interface DstTrackerTurn {
  user: { text: string; audio?: DstAudio | Float32Array | null }
  system?: { text: string; audio?: DstAudio | Float32Array | null }
  /** Values that the system's response mentions. */
  informed?: Readonly<Record<string, string>>
}

/**
 * Tracks one dialog, turn by turn.
 *
 * ```ts
 * const tracker = new DstTracker({ model, config, tokenizer })
 * const { state } = await tracker.next({ user: { text: 'a cheap hotel' }, system: { text: 'the Ashley is cheap' } })
 * ```
 */
export class DstTracker {
  /** Values after the last turn; slots without a value are omitted. */
  state: SlotValues = slotValues()
  readonly #options: DstTrackerOptions
  readonly #featurizer: DstFeaturizer
  #turn = 0
  #previousInforms: SlotValues = slotValues()

  constructor(options: DstTrackerOptions) {
    requireOptions('DstTracker', options, ['model', 'maxLength', 'config', 'tokenizer', 'compat'])
    checkDstConfig(options.config)
    this.#options = options
    this.#featurizer = new DstFeaturizer(options)
  }

  /** Reset the state for a new dialog. */
  reset(): void {
    this.state = slotValues()
    this.#previousInforms = slotValues()
    this.#turn = 0
  }

  /** Track a turn. @returns the new state, the slots that changed, and the prediction */
  async next(turn: DstTrackerTurn): Promise<{ state: SlotValues; changed: string[]; prediction: DstPrediction }> {
    requireObject('DstTracker', 'turn', turn)
    requireObject('DstTracker', 'turn.user', turn.user)
    const { user, system = { text: '' }, informed = {} } = turn
    requireString('DstTracker', 'user.text', user.text)
    requireString('DstTracker', 'system.text', system.text)
    const { config, model, tokenizer } = this.#options
    const informs = slotValues(
      config.slots.flatMap((slot) => {
        const value = Object.hasOwn(informed, slot) ? normalizeDstLabel(slot, informed[slot]) : 'none'
        return value === 'none' ? [] : [[slot, value] as const]
      }),
    )
    const features = this.#featurizer.features({
      ...{ dialog: '', turn: this.#turn, userWords: dstWords(user.text), systemWords: dstWords(system.text) },
      ...{ userAudio: null, systemAudio: null, classes: slotValues<never>(), spans: slotValues<never>() },
      ...{ refers: slotValues(), informed: [], stateBefore: slotValues<never>(), values: slotValues() },
      informs: slotValues([...Object.entries(this.#previousInforms), ...Object.entries(informs)]),
    })
    const collate = dstCollate({ padId: dstSpecialIds(tokenizer).pad })
    const [prediction] = await withEvalMode(model, () =>
      scope(async () => {
        const [userSamples, systemSamples] = await Promise.all([samplesOf(user.audio), samplesOf(system.audio)])
        return predictDst(model, () => collate([{ features, userSamples, systemSamples }]))
      }),
    )
    const before = this.state
    this.state = nextDstState(before, prediction!, features, { config, tokenizer, compat: this.#options.compat })
    this.#previousInforms = informs
    this.#turn += 1
    const changed = config.slots.filter((slot) => this.state[slot] !== before[slot])
    return { state: this.state, changed, prediction: prediction! }
  }
}

const samplesOf = (audio: DstAudio | Float32Array | null | undefined): Float32Array | Promise<Tensor | null> =>
  audio instanceof Float32Array ? audio : dstSamples(audio ?? null)
