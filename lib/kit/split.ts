import { requireNumber, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { Random } from '../data/random.js'

export type Part = 'train' | 'valid' | 'test'

/** Rules that assign samples to parts. */
export interface SplitOptions<S> {
  /**
   * Return the name of a sample's group, such as its dialog, and the names of anything else that it must not share with another
   * part, such as its audio files. Groups that share a name stay together. Default: each sample is a group.
   */
  keysOf?: (sample: S) => readonly string[]
  speakerOf?: (sample: S) => string | undefined
  /** Return the part that the sample itself names, which overrides all other rules. */
  partOf?: (sample: S) => Part | undefined
  /** Fraction of the remaining groups for validation, and for test. Default 0. */
  valid?: number
  test?: number
  /** Speakers whose groups go to validation, or to test. */
  speakers?: Partial<Record<'valid' | 'test', readonly string[]>>
  /** Default 42. */
  seed?: number
  /** Function and data source, for messages. */
  where?: string
  source?: string
}

/** Samples that stay together. */
interface Group {
  /** Group names, sorted. */
  names: string[]
  /** Indices of the samples. */
  places: number[]
}

/**
 * Split samples into parts. The split depends only on the seed, and with `keysOf` not on the order of the samples. A fraction above
 * 0 gets at least one group; if large groups stay together, a part may be smaller than its fraction.
 *
 * @returns the parts, each in the order of the samples; `train` may be empty, see {@link nothingToTrainOn}
 * @throws DataError for a speaker without samples, and for samples of one group that name different parts
 */
export function split<S>(samples: readonly S[], options: SplitOptions<S> = {}): Record<Part, S[]> {
  const { keysOf, speakerOf = () => undefined, partOf = () => undefined, valid = 0, test = 0, speakers = {} } = options
  const { seed = 42, where = 'split', source = 'the data' } = options
  requireNumber(where, 'valid', valid, { least: 0, below: 1 })
  requireNumber(where, 'test', test, { least: 0, below: 1 })
  requireWhole(where, 'seed', seed)
  const groups = keysOf ? groupsOf(samples, keysOf) : samples.map((_, place) => ({ names: [''], places: [place] }))
  const all = ({ places }: Group) => places.map((place) => samples[place] as S)
  const parts = new Map<Group, Part>()
  for (const name of ['valid', 'test'] as const) {
    for (const speaker of speakers[name] ?? []) {
      const own = groups.filter((group) => all(group).some((sample) => speakerOf(sample) === speaker))
      if (own.length === 0)
        throw new DataError(
          `${where}: speakers.${name}: expected speakers of ${source}, got ${JSON.stringify(speaker)}, who has no samples. Check the name.`,
          { speaker },
        )
      for (const group of own) parts.set(group, name)
    }
  }
  for (const group of groups) {
    const [named, ...others] = new Set(all(group).flatMap((sample) => partOf(sample) ?? []))
    if (others.length > 0) {
      const names = group.names.join(', ')
      throw new DataError(
        `${source}: expected one part for ${names}, which stay together, got ${[named, ...others].join(' and ')}. Correct the data.`,
        { names },
      )
    }
    if (named) parts.set(group, named)
  }
  const free = new Random(seed).shuffle(groups.filter((group) => !parts.has(group)))
  const count = free.reduce((sum, group) => sum + group.names.length, 0)
  for (const [name, share] of Object.entries({ valid, test }) as ['valid' | 'test', number][]) {
    const rest = free.filter((group) => !parts.has(group))
    for (const group of share === 0 ? [] : taken(rest, Math.max(1, Math.round(share * count)))) parts.set(group, name)
  }
  const named = new Map(groups.flatMap((group) => group.places.map((place) => [place, parts.get(group) ?? 'train'])))
  const result: Record<Part, S[]> = { train: [], valid: [], test: [] }
  for (const [place, sample] of samples.entries()) result[named.get(place) as Part].push(sample)
  return result
}

/** Return the groups, sorted by their first names. */
function groupsOf<S>(samples: readonly S[], keysOf: (sample: S) => readonly string[]): Group[] {
  const roots = new Map<string, string>()
  const rootOf = (name: string): string => {
    let root = name
    for (let next = roots.get(root); next !== undefined && next !== root; next = roots.get(root)) root = next
    for (let at = name; at !== root; ) {
      const next = roots.get(at) ?? root
      roots.set(at, root)
      at = next
    }
    return root
  }
  const nameOf = (sample: S) => keysOf(sample)[0] as string
  for (const sample of samples) for (const key of keysOf(sample)) roots.set(rootOf(key), rootOf(nameOf(sample)))
  const groups = new Map<string, Group & { all: Set<string> }>()
  for (const [place, sample] of samples.entries()) {
    const root = rootOf(nameOf(sample))
    const group = groups.get(root) ?? { names: [], places: [], all: new Set() }
    group.places.push(place)
    group.all.add(nameOf(sample))
    groups.set(root, group)
  }
  for (const group of groups.values()) group.names = [...group.all].sort()
  return [...groups.values()].sort((a, b) => ((a.names[0] as string) < (b.names[0] as string) ? -1 : 1))
}

/** Return the first groups that fit into a size, or the smallest group if none fits. */
function taken(groups: readonly Group[], size: number): Group[] {
  const found: Group[] = []
  let free = size
  for (const group of groups) {
    if (group.names.length > free) continue
    found.push(group)
    free -= group.names.length
  }
  if (found.length > 0) return found
  return [...groups].sort((a, b) => a.names.length - b.names.length).slice(0, 1)
}

/**
 * Return the error for a split without training data. It names what most groups share.
 * @param words name of the groups, and of what they share
 */
export function nothingToTrainOn<S>(
  samples: readonly S[],
  keysOf: (sample: S) => readonly string[],
  words: { groups: string; shared: string; nameOf: (key: string) => string },
): DataError {
  const holders = new Map<string, Set<string>>()
  for (const sample of samples) {
    const [name = '', ...rest] = keysOf(sample)
    for (const key of rest) holders.set(key, (holders.get(key) ?? new Set()).add(name))
  }
  const count = new Set(samples.map((sample) => keysOf(sample)[0])).size
  const [most] = [...holders].sort(([, a], [, b]) => b.size - a.size)
  const why =
    most && most[1].size > 1
      ? `${words.groups} that share a ${words.shared} stay together, and ${words.nameOf(most[0])} is in ${most[1].size}. Pass validation data of its own.`
      : 'Add data, or lower the fractions.'
  const kind = words.groups.toLowerCase()
  return new DataError(`split: expected training data after the split of ${count} ${kind}, got none. ${why}`, {
    [kind]: count,
  })
}

/** Return the groups of the second samples that share a name with the first. */
export function sharedGroups<S>(a: readonly S[], b: readonly S[], keysOf: (sample: S) => readonly string[]): string[] {
  const known = new Set(a.flatMap((sample) => keysOf(sample)))
  const shared = b.map(keysOf).filter((keys) => keys.some((key) => known.has(key)))
  return [...new Set(shared.map(([name]) => name as string))]
}
