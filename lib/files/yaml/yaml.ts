import { extname } from 'node:path'
import { argumentError, requireOptions, requireString, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { readJson } from '../json/json.js'
import { chunksOf } from '../text.js'

export interface ReadYamlOptions {
  /**
   * Maximum number of lexical tokens (a `key: value` line has about five), and of values with aliases expanded. Default
   * 100,000.
   */
  maxTokens?: number
}

const MAX_BYTES = 1 << 22

/**
 * Read a YAML file of one document. The grammar is that of YAML 1.2. Plain values have their meaning in OmegaConf and (except
 * numbers such as `1e-4`) PyYAML, for which configurations are written:
 *
 * | written | read as |
 * | --- | --- |
 * | `true`, `yes`, `on`, `false`, `no`, `off` in the usual cases | boolean; put `'no'` in quotes to mean the word |
 * | `3e-5`, `1e-4`, `1.5`, `.inf`, `.nan` | number (PyYAML reads `3e-5` as a text, OmegaConf as a number) |
 * | `42`, `1_000`, `0x1F`, `0b101`, `010` (octal: 8), `1:30` (sixties: 90) | number, or bigint beyond 2^53 |
 * | `null`, `~`, nothing | null |
 * | `2024-01-01` | text, as in OmegaConf (PyYAML makes a date) |
 *
 * Aliases become copies, and `<<` merges mappings. Keys become strings: a key that is not a text keeps its spelling.
 * An empty file is null.
 *
 * @throws DataError with `file`, `line` and `column`, for invalid YAML and for features that configurations do not need: a
 *   duplicate key, tags other than YAML's own (`!!python/…`), keys that are collections, several documents, nesting beyond 100
 *   levels, more than 4 MiB or `maxTokens`
 */
export async function readYaml(path: string, options: ReadYamlOptions = {}): Promise<unknown> {
  requireString('readYaml', 'path', path)
  requireOptions('readYaml', options, ['maxTokens'])
  const { maxTokens = 100_000 } = options
  requireWhole('readYaml', 'maxTokens', maxTokens, 1)
  if (maxTokens > 10_000_000) throw argumentError('readYaml', 'maxTokens', 'at most 10 million', maxTokens)
  // Import the package `yaml` on first use: it takes a tenth of this library's load time.
  const { parseYaml } = await import('./parse.js')
  return parseYaml(chunksOf(path, MAX_BYTES), path, maxTokens)
}

/**
 * Read a configuration by its extension: `.json` with `readJson`, `.yaml` and `.yml` with `readYaml`.
 * @throws ConfigError for another extension; DataError as the readers do
 */
export async function readConfig(path: string): Promise<unknown> {
  requireString('readConfig', 'path', path)
  const extension = extname(path).toLowerCase()
  if (extension === '.json') return readJson(path)
  if (extension === '.yaml' || extension === '.yml') return readYaml(path)
  throw new ConfigError(`${path}: expected the extension .json, .yaml or .yml, got '${extension}'`, { file: path })
}
