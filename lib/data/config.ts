import { extname } from 'node:path'
import { ConfigError } from '../native/errors.js'
import { requireString } from './check.js'
import { readJson } from './json.js'
import { readYaml } from './yaml.js'

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
