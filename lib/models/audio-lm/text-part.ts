import type { ConfigKeys } from '../config-keys.js'
import { type DecoderLMConfig, decoderKeys, type ModelType } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'

/** Keys that published files add to those of the language model, without effect. */
export const TEXT_EXTRAS: readonly string[] = ['useMrope']

/** Return the keys of the language model in a larger configuration. @param modelType that of a configuration without one */
export const textPart =
  (modelType: ModelType, defaults: NetworkConfig = {}) =>
  (config: NetworkConfig): ConfigKeys => {
    const keys = decoderKeys({ modelType, ...config } as DecoderLMConfig)
    const own = typeof keys.defaults === 'function' ? keys.defaults(config) : keys.defaults
    return {
      ...keys,
      defaults: { ...own, ...defaults, modelType: config.modelType ?? modelType },
      only: { ...keys.only, useMrope: [false] },
    }
  }
