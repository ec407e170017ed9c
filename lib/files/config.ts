import { extname } from 'node:path'
import { requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { readJson } from './json/json.js'
import { readYaml } from './yaml/yaml.js'

/**
 * Reads a configuration by its extension: `.json` with `readJson`, `.yaml` and `.yml` with `readYaml`.
 * @throws ConfigError for another extension; DataError as the readers do
 */
export async function readConfig(path: string): Promise<unknown> {
  requireString('readConfig', 'path', path)
  const extension = extname(path).toLowerCase()
  if (extension === '.json') return readJson(path)
  if (extension === '.yaml' || extension === '.yml') return readYaml(path)
  throw new ConfigError(`${path}: a configuration ends in .json, .yaml or .yml, not in '${extension}'`, { file: path })
}
