import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { toCamel, toSnake } from '../base/words.js'
import { readJson, writeJson } from '../files/json/json.js'
import { type GenerationConfig, generationConfig } from './config.js'
import { kinds } from './keys.js'

/** Ways of generating that transformers has and this library has not, with the value that asks for none of them. */
const others: Record<string, unknown> = {
  numBeamGroups: 1,
  diversityPenalty: 0,
  penaltyAlpha: 0,
  dolaLayers: null,
  encoderRepetitionPenalty: 1,
  encoderNoRepeatNgramSize: 0,
  watermarkingConfig: null,
  constraints: null,
  forceWordsIds: null,
  stopStrings: null,
}

/**
 * How a checkpoint's folder says its network generates: `generation_config.json`, and for what that leaves out the tokens
 * that `config.json` names. Keys that only one network or another program reads are left out.
 * @throws CheckpointError where the file holds no configuration
 * @throws ConfigError where it asks for what this library does not do
 */
export async function readGenerationConfig(
  directory: string,
  network: Record<string, unknown> = {},
): Promise<GenerationConfig> {
  const base: Record<string, unknown> = {}
  for (const key of ['bosTokenId', 'eosTokenId', 'padTokenId'] as const) {
    const value = network[key]
    // Some published files have -1 for none.
    if (value !== null && value !== undefined && kinds[key].test(value)) base[key] = value
  }
  const file = join(directory, 'generation_config.json')
  if (!existsSync(file)) return generationConfig(base)
  const read = await readJson(file)
  if (typeof read !== 'object' || read === null || Array.isArray(read)) {
    throw new CheckpointError(`${file} holds no configuration: it is not an object`, { file })
  }
  const known: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(toCamel(read))) {
    if (Object.hasOwn(kinds, key)) {
      if (value !== null && !(key.endsWith('TokenId') && value === -1)) known[key] = value
    } else if (Object.hasOwn(others, key) && value !== null && value !== others[key]) {
      throw new ConfigError(`${file} asks for ${key}, which voxtorch does not do; remove it there`, {
        file,
        [key]: value,
      })
    }
  }
  return generationConfig(known as GenerationConfig, base as GenerationConfig)
}

/** Writes `generation_config.json`, which transformers reads; nothing where there is nothing to say. */
export async function writeGenerationConfig(directory: string, config: GenerationConfig): Promise<void> {
  const { prefixAllowedTokensFn: _, ...plain } = config
  if (Object.keys(plain).length === 0) return
  await writeJson(join(directory, 'generation_config.json'), toSnake(plain), { indent: 2 })
}
