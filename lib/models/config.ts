import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { isConfiguration } from '../nn/native-module.js'

/** A network's configuration. Published files have more keys than a network needs; they are kept for saving. */
export interface NetworkConfig {
  [key: string]: unknown
}

/** A configuration given as an object or by the name of a published size. */
export function configOf<C extends NetworkConfig>(network: string, config: C | string, names: Record<string, C>): C {
  if (typeof config === 'string') {
    const found = Object.hasOwn(names, config) ? names[config] : undefined
    if (found) return { ...found }
    throw new ConfigError(`${network} has no size '${config}'; it has ${Object.keys(names).join(', ')}`, { config })
  }
  if (!isConfiguration(config)) {
    throw new ConfigError(`${network} needs a configuration or the name of one, not ${shown(config)}`)
  }
  return { ...config }
}
