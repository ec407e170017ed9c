import { isConfiguration } from '../nn/native-module.js'
import type { ConfigKeys } from './config-keys.js'
import type { NetworkConfig } from './network.js'

/** Rotary positions with one base and no scaling, under the keys of transformers 4 and 5. */
export interface PlainRopeConfig extends NetworkConfig {
  /** Base of the rotary positions. Default 10000. */
  ropeTheta?: number
  /** The same as transformers 5 writes it; its values come before those of the other keys. Read only. */
  ropeParameters?: { ropeType?: 'default'; ropeTheta?: number; partialRotaryFactor?: number } | null
}

/** Keys of `ropeParameters`. */
export const plainRopeKeys: ConfigKeys = {
  defaults: {},
  only: { ropeType: ['default'], type: ['default'] },
  unused: ['ropeTheta', 'partialRotaryFactor'],
}

/** Return the configuration with the values of `ropeParameters` under keys of their own. */
export function withPlainRope<C extends PlainRopeConfig>(config: C): C {
  const { ropeParameters, ...rest } = config
  if (!isConfiguration(ropeParameters)) return rest as unknown as C
  const { ropeTheta, partialRotaryFactor } = ropeParameters as NetworkConfig
  return {
    ...rest,
    ...(ropeTheta !== undefined && { ropeTheta }),
    ...(partialRotaryFactor !== undefined && { partialRotaryFactor }),
  } as unknown as C
}

/** Return the configuration for config.json, where transformers 5 finds `rope_parameters` and older versions the other keys. */
export const savedPlainRope = <C extends PlainRopeConfig>(config: C): NetworkConfig => ({
  ...config,
  ropeParameters: {
    rope_type: 'default',
    rope_theta: config.ropeTheta,
    ...(config.partialRotaryFactor !== undefined && { partial_rotary_factor: config.partialRotaryFactor }),
  },
})
