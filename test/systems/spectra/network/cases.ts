import type { SpectraClassificationInputs, SpectraConfig } from '../../../../lib/systems/spectra/index.js'
import { camelKeys } from '../../../models/networks.js'

export interface SpectraCase {
  name: string
  clips: 1 | 2
  config: Record<string, unknown>
  counts: number[]
}

export type InputsOf = SpectraClassificationInputs

/** A fixture's configuration as options. */
export function configOf({ text_config, audio_config, ...options }: Record<string, unknown>): SpectraConfig {
  return {
    ...camelKeys(options),
    textConfig: camelKeys(text_config as Record<string, unknown>),
    audioConfig: camelKeys(audio_config as Record<string, unknown>),
  }
}
