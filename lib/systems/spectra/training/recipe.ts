/** How a task is trained unless its user says otherwise. */
export interface SpectraPreset {
  readonly epochs: number
  readonly batchSize: number
  /** Batches whose gradients make one step. */
  readonly accumulation: number
  readonly learningRate: number
  /** Share of all steps over which the rate climbs. */
  readonly warmup: number
  readonly weightDecay: number
  readonly maxGradNorm: number
  /** Epochs without progress after which training stops. */
  readonly patience: number
  readonly seed: number
  /** Whether the clip of the turn before is heard too. */
  readonly historyAudio: boolean
  /** Whether the text tells earlier turns (type 0) from the current one (type 1). */
  readonly turnIds: boolean
}

/** The published one, of all four tasks but for history. */
export const SPECTRA_RECIPE: SpectraPreset = {
  epochs: 5,
  batchSize: 24,
  accumulation: 1,
  learningRate: 2e-5,
  warmup: 0.01,
  weightDecay: 0.01,
  maxGradNorm: 1,
  patience: 5,
  seed: 42,
  historyAudio: false,
  turnIds: false,
}
