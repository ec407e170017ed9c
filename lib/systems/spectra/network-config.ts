import { requireString } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { readJson } from '../../files/json/json.js'
import type { SpectraConfig } from '../../models/spectra/config.js'
import { namedSpectraConfig } from '../../models/spectra/config.js'

/**
 * The configuration of a network that is made from scratch: `'base'`, the published size; `'tiny'`, one that a laptop
 * trains; or a JSON file that holds `textConfig`, `audioConfig` and the other fields of {@link SpectraConfig}. It has as
 * many tokens as the tokenizer, unless a file says another number.
 * @param tokenizer left out where texts come as RoBERTa's token numbers
 * @throws ConfigError for a size that there is not; DataError for a file that is no JSON
 */
export async function readSpectraConfig(
  nameOrFile: string,
  tokenizer?: { readonly vocabSize: number },
): Promise<SpectraConfig> {
  requireString('readSpectraConfig', 'nameOrFile', nameOrFile)
  const named = !nameOrFile.endsWith('.json')
  const config = named ? namedSpectraConfig(nameOrFile) : ((await readJson(nameOrFile)) as SpectraConfig)
  const text: unknown = config?.textConfig
  if (typeof text !== 'object' || text === null) {
    throw new ConfigError(`${nameOrFile} has no textConfig: it must hold an object with textConfig and audioConfig`, {
      file: nameOrFile,
    })
  }
  const own = named ? undefined : config.textConfig.vocabSize
  const vocabSize = own ?? tokenizer?.vocabSize ?? config.textConfig.vocabSize
  return { ...config, textConfig: { ...config.textConfig, ...(vocabSize !== undefined && { vocabSize }) } }
}
