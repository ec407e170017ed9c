// Settings with command-line options, apart from modules that load libtorch, which `--help` must not do.
import { argumentError } from '../base/check.js'
import { type SettingTable, settings } from '../base/settings.js'

/** Kinds of preference losses, by TRL's names. */
export const PREFERENCE_LOSSES = ['sigmoid', 'ipo', 'kto', 'orpo', 'simpo'] as const
export type PreferenceLoss = (typeof PREFERENCE_LOSSES)[number]

const BETA = {
  /** Weight of the deviation from the reference: the higher, the closer the model stays to it. Above 0. Default 0.1. */
  beta: {
    type: 'number',
    default: 0.1,
    help: 'strength of the preference loss: higher values stay closer to the reference',
  },
} as const satisfies SettingTable

const LABEL_SMOOTHING = {
  /** Probability that a pair is in the wrong order, for the losses 'sigmoid' and 'simpo', below 0.5. Default 0. */
  labelSmoothing: {
    ...{ type: 'number', below: 0.5, default: 0 },
    help: 'sigmoid and simpo: probability that a pair is in the wrong order',
  },
} as const satisfies SettingTable

/** Options of `dpoLoss`. */
export const DPO_LOSS = settings({ ...BETA, ...LABEL_SMOOTHING })
/** Options of `ipoLoss` and `orpoLoss`. */
export const BETA_LOSS = settings(BETA)
/** Options of `ktoLoss`. */
export const KTO_LOSS = settings({
  ...BETA,
  /** Weight of chosen answers in the loss. Default 1. */
  desirableWeight: { type: 'number', default: 1, help: 'kto: weight of chosen answers' },
  /** Weight of rejected answers in the loss. Default 1. */
  undesirableWeight: { type: 'number', default: 1, help: 'kto: weight of rejected answers' },
})
/** Options of `simpoLoss`. */
export const SIMPO_LOSS = settings({
  ...BETA,
  ...LABEL_SMOOTHING,
  /** Target margin between the rewards of a pair, γ in the paper. Default 0.5. */
  simpoGamma: { type: 'number', default: 0.5, help: 'simpo: target margin between the rewards of a pair' },
})

/** Check that β is positive. */
export function requireBeta(where: string, beta: number): void {
  if (!(beta > 0)) throw argumentError(where, 'beta', 'a number above 0', beta)
}

/** Options of LoRA+. */
export const LORA_PLUS = settings({
  lr: { type: 'number', required: true },
  loraplusLrRatio: {
    ...{ type: 'number', min: 1, required: true },
    help: "LoRA+: learning rate of the adapters' matrices B as a multiple of that of A, for example 16",
  },
  loraplusLrEmbedding: { type: 'number', default: 1e-6 },
  loraplusWeightDecay: { type: 'number', default: 0 },
})
