import { ConfigError, DataError } from '../base/errors.js'
import { didYouMean } from '../base/words.js'
import { parseYaml } from '../files/yaml/parse.js'
import { type MediaFeatures, yamlFeatures } from './features.js'
import { MatchBudget, matching } from './patterns.js'

/** Choice of a part of a dataset. */
export interface LayoutOptions {
  /** Name of the configuration in the README.md. Default: the only one, the one marked as default, or `default`. */
  config?: string | undefined
  /** Name of the split. Default `'train'`, or the only one. */
  split?: string | undefined
}

/** Files of a split, and the media of its columns as far as the README.md states them. */
export interface Layout {
  /** Relative paths in order. */
  files: string[]
  /** Name of the split. */
  split: string
  features: MediaFeatures
}

const EXTENSIONS = ['.parquet', '.tar', '.tar.gz', '.tgz', '.jsonl', '.ndjson', '.json']
/** Files that describe a dataset, and do not belong to its data. */
const DESCRIPTIONS = ['dataset_info.json', 'dataset_infos.json', 'dataset_dict.json', 'state.json']
const KEYWORDS: Record<string, readonly string[]> = {
  train: ['train', 'training'],
  validation: ['validation', 'valid', 'dev', 'val'],
  test: ['test', 'testing', 'eval', 'evaluation'],
}

/**
 * Return the files of a split: those that the front matter of the README.md names under `configs`, or by the usual names.
 * @param name of the dataset, for errors
 * @param paths of all files
 * @param readme contents of the README.md, if there is one
 */
export async function layoutOf(
  name: string,
  paths: readonly string[],
  readme: Uint8Array | undefined,
  { config, split }: LayoutOptions,
): Promise<Layout> {
  const card = readme === undefined ? {} : await frontMatter(readme, `${name}/README.md`)
  const configs = listOf(card.configs)
  const chosen = configs.length > 0 ? chosenConfig(name, configs, config) : undefined
  if (
    chosen === undefined &&
    config !== undefined &&
    !listOf(card.dataset_info).some((one) => one.config_name === config)
  ) {
    throw new ConfigError(`${name}: expected configurations in its README.md, got none. Leave config out`, {
      argument: 'config',
    })
  }
  const fromCard = chosen?.data_files !== undefined
  const splits = fromCard
    ? statedSplits(name, paths, chosen as Entry)
    : usualSplits(name, under(paths, chosen?.data_dir))
  const chosenSplit = splitOf(name, splits, split)
  const infos = listOf(card.dataset_info)
  const info =
    infos.find((one) => one.config_name === (chosen?.config_name ?? config)) ??
    (infos.length === 1 ? infos[0] : undefined)
  const stated = Array.isArray(info?.features) ? (info.features as { name?: unknown }[]) : undefined
  return {
    files: splits.get(chosenSplit) as string[],
    split: chosenSplit,
    features: yamlFeatures(stated),
  }
}

type Entry = Record<string, unknown>

const listOf = (value: unknown): Entry[] =>
  (Array.isArray(value) ? value : value === undefined ? [] : [value]).filter(
    (one): one is Entry => typeof one === 'object' && one !== null,
  )

export const LONGEST_CARD = 2 ** 22

/** Return the front matter of a README.md: YAML between two lines of `---`. */
async function frontMatter(readme: Uint8Array, file: string): Promise<Entry> {
  const text = Buffer.from(readme.buffer, readme.byteOffset, Math.min(readme.byteLength, LONGEST_CARD))
  const lines = text.toString('latin1').split('\n')
  if (lines[0]?.trimEnd() !== '---') return {}
  const end = lines.findIndex((line, i) => i > 0 && line.trimEnd() === '---')
  if (end < 0)
    throw new DataError(`${file}: line 1: expected a line --- after the front matter, got none`, { file, line: 1 })
  const length = lines.slice(0, end).reduce((sum, line) => sum + line.length + 1, 0)
  // A blank line in place of the first keeps the numbers of lines.
  const value = await parseYaml([Buffer.from('\n'), text.subarray((lines[0] as string).length + 1, length)], file)
  if (value === null) return {}
  if (typeof value === 'object' && !Array.isArray(value)) return value as Entry
  throw new DataError(`${file}: line 1: expected a mapping as front matter`, { file, line: 1 })
}

function chosenConfig(name: string, configs: readonly Entry[], wanted: string | undefined): Entry {
  const names = configs.map(({ config_name: one }) => String(one))
  const by = (test: (entry: Entry) => boolean) => configs.find(test)
  const found =
    wanted !== undefined
      ? by(({ config_name: one }) => one === wanted)
      : configs.length === 1
        ? configs[0]
        : (by((entry) => entry.default === true) ?? by(({ config_name: one }) => one === 'default'))
  if (found !== undefined) return found
  throw new ConfigError(
    wanted === undefined
      ? `${name}: expected one configuration, got ${names.join(', ')}. Set config to one of them`
      : `${name}: expected a configuration of its README.md (${names.join(', ')}), got '${wanted}'${didYouMean(wanted, names)}`,
    { argument: 'config' },
  )
}

const under = (paths: readonly string[], folder: unknown): readonly string[] =>
  typeof folder === 'string' ? paths.filter((path) => path.startsWith(`${folder.replace(/\/$/, '')}/`)) : paths

/** Return the splits of `data_files`: a pattern, a list of them, or a list of { split, path }. */
function statedSplits(name: string, paths: readonly string[], { data_files: files, data_dir: folder }: Entry): Splits {
  const splits: Splits = new Map()
  const patterns = (value: unknown): string[] =>
    (Array.isArray(value) ? value : [value]).map((pattern) => {
      if (typeof pattern === 'string')
        return typeof folder === 'string' ? `${folder.replace(/\/$/, '')}/${pattern}` : pattern
      throw new DataError(`${name}/README.md: expected patterns in data_files, got another value`, {
        file: `${name}/README.md`,
      })
    })
  const budget = new MatchBudget()
  const added = new Map<string, Set<string>>()
  const add = (split: string, value: unknown) => {
    const all = added.get(split) ?? new Set()
    added.set(split, all)
    for (const pattern of patterns(value)) {
      const found = matching(paths, pattern, budget)
      if (found.length === 0) {
        throw new DataError(`${name}: expected files ${pattern} as in its README.md, got none`, { file: name, split })
      }
      for (const path of found) all.add(path)
    }
    if (all.size > 0) splits.set(split, [...all])
  }
  const list = Array.isArray(files) ? files : [files]
  for (const item of list) {
    if (typeof item === 'object' && item !== null) {
      const { split, path } = item as Entry
      add(String(split), path)
    } else add('train', item)
  }
  return splits
}

type Splits = Map<string, string[]>

/** Return the splits by the names of files and folders. Of several formats the first of Parquet, tar and JSON is used. */
function usualSplits(name: string, paths: readonly string[]): Splits {
  const formats = [['.parquet'], ['.tar', '.tar.gz', '.tgz'], ['.jsonl', '.ndjson', '.json']]
  const isData = (path: string, ends: readonly string[]) =>
    ends.some((end) => path.toLowerCase().endsWith(end)) &&
    !DESCRIPTIONS.includes(path.slice(path.lastIndexOf('/') + 1))
  const files = formats.map((ends) => paths.filter((path) => isData(path, ends))).find((found) => found.length > 0)
  if (files === undefined) {
    throw new DataError(`${name}: expected data files (${EXTENSIONS.join(', ')}), got none`, { file: name })
  }
  const sharded = new Map<string, Shard>()
  for (const path of files) {
    const shard = shardOf(path)
    if (shard !== undefined) sharded.set(path, shard)
  }
  requireAllShards(name, sharded)
  const used = sharded.size > 0 ? [...sharded.keys()] : files
  warnOfOthers(name, paths, used)
  const splits: Splits = new Map()
  for (const path of used) {
    const shard = sharded.get(path)
    const split = keywordIn(path) ?? (shard === undefined ? 'train' : shard.split)
    const group = splits.get(split)
    if (group === undefined) splits.set(split, [path])
    else group.push(path)
  }
  return splits
}

/** Warn about data files that no split has. Other JSON files may be anything. */
function warnOfOthers(name: string, paths: readonly string[], used: readonly string[]): void {
  const own = new Set(used)
  const others = paths.filter(
    (path) => !own.has(path) && EXTENSIONS.some((end) => end !== '.json' && path.toLowerCase().endsWith(end)),
  )
  if (others.length === 0) return
  const more = others.length > 5 ? ` and ${others.length - 5} more` : ''
  process.emitWarning(
    `${name}: left out ${others.slice(0, 5).join(', ')}${more}, in addition to ${used[0]}. Name the files under configs in README.md`,
    'DatasetWarning',
  )
}

interface Shard {
  /** Path without the number, and with it the split: `data/train`. */
  stem: string
  split: string
  index: number
  count: number
}

/** Parse a name such as `data/train-00000-of-00004.parquet`, or with a hash before the extension. */
function shardOf(path: string): Shard | undefined {
  const of = path.lastIndexOf('-of-')
  const index = path.slice(of - 5, of)
  const count = path.slice(of + 4, of + 9)
  const isShard = of > 6 && path[of - 6] === '-' && /^\d{5}$/.test(index) && /^\d{5}$/.test(count)
  if (!isShard || !'.-'.includes(path[of + 9] ?? '/')) return undefined
  const stem = path.slice(0, of - 6)
  return { stem, split: stem.slice(stem.lastIndexOf('/') + 1), index: Number(index), count: Number(count) }
}

/** Check that each shard is there once. */
function requireAllShards(name: string, shards: ReadonlyMap<string, Shard>): void {
  const five = (number: number) => String(number).padStart(5, '0')
  const groups = new Map<string, { first: Shard; found: Map<number, string> }>()
  for (const [path, shard] of shards) {
    const group = groups.get(shard.stem) ?? { first: shard, found: new Map<number, string>() }
    groups.set(shard.stem, group)
    const { first, found } = group
    const other = found.get(shard.index)
    if (shard.count !== first.count || other !== undefined) {
      throw new DataError(
        `${name}: expected one set of files ${first.stem}-*, got two: ${other ?? found.values().next().value}, ${path}. Remove one or name the files under configs in README.md`,
        { file: name, stem: first.stem },
      )
    }
    found.set(shard.index, path)
  }
  for (const { first, found } of groups.values()) {
    const missing = Array.from({ length: first.count }, (_, i) => i).filter((i) => !found.has(i))
    if (missing.length === 0) continue
    throw new DataError(
      `${name}: expected ${first.count} files ${first.stem}-*-of-${five(first.count)}, got ${found.size}: number ${five(missing[0] as number)} is missing`,
      { file: name, missing },
    )
  }
}

/** Return the split that a word of the file's name states, or of its nearest folder. */
function keywordIn(path: string): string | undefined {
  for (const part of path.split('/').reverse()) {
    const words = part.toLowerCase().split(/[^a-z]/)
    const found = Object.entries(KEYWORDS).find(([, keywords]) => words.some((word) => keywords.includes(word)))
    if (found !== undefined) return found[0]
  }
  return undefined
}

function splitOf(name: string, splits: Splits, wanted: string | undefined): string {
  const names = [...splits.keys()]
  if (splits.has(wanted ?? 'train')) return wanted ?? 'train'
  if (wanted === undefined && names.length === 1) return names[0] as string
  const near = wanted === undefined ? '' : didYouMean(wanted, names)
  throw new ConfigError(`${name}: expected a split of ${names.join(', ')}, got '${wanted ?? 'train'}'${near}`, {
    argument: 'split',
  })
}
