/** Default hyperparameters of a task. */
export interface SpectraPreset {
  readonly epochs: number
  readonly batchSize: number
  /** Gradient accumulation: batches per optimizer step. */
  readonly accumulation: number
  readonly learningRate: number
  /** Fraction of all steps for warmup. */
  readonly warmup: number
  readonly weightDecay: number
  readonly maxGradNorm: number
  /** Early stopping: epochs without improvement. */
  readonly patience: number
  readonly seed: number
  /** Whether the clip of the previous turn is used. */
  readonly historyAudio: boolean
  /** Whether token types distinguish previous turns (0) from the current one (1). */
  readonly turnIds: boolean
}

/** The published hyperparameters; the same for all four tasks except for history. */
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
