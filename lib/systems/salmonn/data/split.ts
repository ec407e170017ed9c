import { requireNumber, requireOptions, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { Random } from '../../../data/random.js'
import type { SalmonnEntry } from './entry.js'

export interface SplitSalmonnOptions {
  /** Share of the dialogs to validate with. Default 0.1; 0 where speakers are held out. */
  valid?: number
  /** Share of the dialogs to test with. Default 0. */
  test?: number
  /** Whoever of these speaks in a dialog, it is for validation, or for the test. */
  validSpeakers?: readonly string[]
  testSpeakers?: readonly string[]
  /** Default 42. */
  seed?: number
}

export interface SalmonnSplit {
  train: SalmonnEntry[]
  valid: SalmonnEntry[]
  test: SalmonnEntry[]
}

/**
 * Divides entries so that all of one dialog are in one part, and all that share a sound file too, the same for the same seed
 * whatever the order of the entries. Each share that is not 0 gets a dialog at least; where many share sound files, a part may
 * be smaller than its share. Whoever is held out, all dialogs that share sound with theirs are too.
 *
 * @throws DataError where nothing is left to train on, or nobody of a name speaks
 */
export function splitSalmonn(entries: readonly SalmonnEntry[], options: SplitSalmonnOptions = {}): SalmonnSplit {
  const where = 'splitSalmonn'
  requireForm(where, 'entries', entries, [{ dialog: 'string', audio: ['string'] }])
  for (const name of ['validSpeakers', 'testSpeakers'] as const) {
    if (options?.[name] !== undefined) requireForm(where, name, options[name], ['string'])
  }
  requireOptions(where, options, ['valid', 'test', 'validSpeakers', 'testSpeakers', 'seed'])
  const { validSpeakers = [], testSpeakers = [], seed = 42 } = options
  const { valid = validSpeakers.length > 0 ? 0 : 0.1, test = 0 } = options
  requireNumber(where, 'valid', valid, { least: 0, below: 1 })
  requireNumber(where, 'test', test, { least: 0, below: 1 })
  requireWhole(where, 'seed', seed)
  const groups = groupsOf(entries)
  const part = new Map<Group, keyof SalmonnSplit>()
  for (const [name, speakers] of [
    ['valid', validSpeakers],
    ['test', testSpeakers],
  ] as const) {
    for (const speaker of speakers) {
      const own = groups.filter((group) => group.entries.some((entry) => entry.speaker === speaker))
      if (own.length === 0) throw new DataError(`Nobody called '${speaker}' speaks in the data`, { speaker })
      for (const group of own) part.set(group, name)
    }
  }
  const free = new Random(seed).shuffle(groups.filter((group) => !part.has(group)))
  const dialogs = free.reduce((sum, group) => sum + group.dialogs.length, 0)
  for (const [name, share] of [
    ['valid', valid],
    ['test', test],
  ] as const) {
    const rest = free.filter((group) => !part.has(group))
    for (const group of share === 0 ? [] : taken(rest, Math.max(1, Math.round(share * dialogs)))) part.set(group, name)
  }
  const named = new Map(groups.flatMap((group) => group.dialogs.map((dialog) => [dialog, part.get(group) ?? 'train'])))
  const split: SalmonnSplit = { train: [], valid: [], test: [] }
  for (const entry of entries as readonly SalmonnEntry[]) split[named.get(entry.dialog) ?? 'train'].push(entry)
  if (split.train.length === 0) throw nothingLeft(groups)
  return split
}

/** Dialogs that must stay together, since they share sound files. */
interface Group {
  /** In order of their names. */
  dialogs: string[]
  entries: SalmonnEntry[]
}

/** In the order of their first dialogs' names. */
function groupsOf(entries: readonly SalmonnEntry[]): Group[] {
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
  for (const entry of entries) for (const key of keysOf(entry)) roots.set(rootOf(key), rootOf(entry.dialog))
  const groups = new Map<string, Group>()
  for (const entry of entries) {
    const root = rootOf(entry.dialog)
    const group = groups.get(root) ?? { dialogs: [], entries: [] }
    group.entries.push(entry)
    groups.set(root, group)
  }
  for (const group of groups.values()) group.dialogs = [...new Set(group.entries.map(({ dialog }) => dialog))].sort()
  return [...groups.values()].sort((a, b) => ((a.dialogs[0] as string) < (b.dialogs[0] as string) ? -1 : 1))
}

/** The first groups that have no more dialogs than wanted, or the smallest where none is so small. */
function taken(groups: readonly Group[], wanted: number): Group[] {
  const found: Group[] = []
  let room = wanted
  for (const group of groups) {
    if (group.dialogs.length > room) continue
    found.push(group)
    room -= group.dialogs.length
  }
  if (found.length > 0) return found
  return [...groups].sort((a, b) => a.dialogs.length - b.dialogs.length).slice(0, 1)
}

function nothingLeft(groups: readonly Group[]): DataError {
  const entries = groups.flatMap((group) => group.entries)
  const dialogs = new Set(entries.map(({ dialog }) => dialog)).size
  const most = mostShared(entries)
  const shared =
    most && groups.length < dialogs
      ? `. Dialogs that share a sound file stay together, and ${most.path} stands in ${most.count}: give validation data of its own`
      : ': give more, or lower the shares'
  return new DataError(`Of ${dialogs} dialogs none is left to train on${shared}`, { dialogs })
}

/** The sound file that stands in most dialogs. */
function mostShared(entries: readonly SalmonnEntry[]): { path: string; count: number } | undefined {
  const dialogs = new Map<string, Set<string>>()
  for (const { audio, dialog } of entries) {
    for (const path of audio) dialogs.set(path, (dialogs.get(path) ?? new Set()).add(dialog))
  }
  return [...dialogs].map(([path, { size: count }]) => ({ path, count })).sort((a, b) => b.count - a.count)[0]
}

/** Dialogs and sound files that two parts share; validation must have none of training's. */
export function sharedDialogs(a: readonly SalmonnEntry[], b: readonly SalmonnEntry[]): string[] {
  for (const [name, part] of Object.entries({ a, b })) {
    requireForm('sharedDialogs', name, part, [{ dialog: 'string', audio: ['string'] }])
  }
  const known = new Set(a.flatMap(keysOf))
  return [...new Set(b.filter((entry) => keysOf(entry).some((key) => known.has(key))).map(({ dialog }) => dialog))]
}

/** A dialog's name and its files; no name is like a file's. */
const keysOf = ({ dialog, audio }: SalmonnEntry): string[] => [dialog, ...audio.map((path) => `\0${path}`)]
