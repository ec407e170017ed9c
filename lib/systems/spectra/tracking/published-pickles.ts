import { join } from 'node:path'
import { defined, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { readPickle } from '../../../files/pickle/read-pickle.js'
import { checkDstConfig, DST_CLASS_TYPES, type DstClassType, type DstConfig } from './config.js'
import { type DstAudio, slotValues } from './dialog.js'
import type { DstFeatures } from './features.js'
import type { DstExample } from './labels.js'

export interface ReadDstPickleOptions {
  config: DstConfig
  /** Folder that the pickle's audio paths are relative to. Default: no speech. */
  audio?: string
  /** Name of the file in a `.tar`, `.tgz` or `.zip` archive. */
  entry?: string
}

function configOf(where: string, path: string, options: ReadDstPickleOptions): DstConfig {
  requireForm(where, 'path', path, 'string')
  requireForm(where, 'options', options, { 'audio?': 'string', 'entry?': 'string' })
  return checkDstConfig(options.config)
}

/** Read `{split}_example.pkl`: a list of `DSTExample`. No code in the file is run. */
export async function readDstExamples(path: string, options: ReadDstPickleOptions): Promise<DstExample[]> {
  const config = configOf('readDstExamples', path, options)
  const records = await read(path, 'DSTExample', options)
  return records.map((record) => ({
    ...record.place(),
    userWords: record.list('text_a', isString),
    systemWords: record.list('text_b', isString),
    userAudio: record.audio('audio_a', record.value('audio_a')),
    systemAudio: record.audio('audio_b', record.value('audio_b')),
    classes: record.slots('class_label', isClass, (kind) => (kind === 'none' ? undefined : kind)),
    spans: record.slots('text_a_label', isList, spanOf),
    refers: record.slots('refer_label', isString, named),
    informed: config.slots.filter((slot) => record.slots('inform_slot_label', isNumber, positive)[slot] !== undefined),
    informs: record.slots('inform_label', isString, named),
    stateBefore: record.slots('diag_state', isClass, (kind) => (kind === 'none' ? undefined : kind)),
    values: record.slots('values', isString, named),
  }))
}

/** Read `{split}_feature_roberta_nohistory.pkl`: a list of `InputFeatures`. No code in the file is run. */
export async function readDstFeatures(path: string, options: ReadDstPickleOptions): Promise<DstFeatures[]> {
  const { slots, classTypes } = configOf('readDstFeatures', path, options)
  const records = await read(path, 'InputFeatures', options)
  return records.map((record) => {
    const mask = record.list('text_mask', isNumber)
    const inputIds = record.list('text_inputs', isNumber).slice(0, mask.lastIndexOf(1) + 1)
    const roles = record.list('role_token_ids', isNumber)
    const [userAudio, systemAudio] = record.list('audio_inputs', () => true)
    const numbers = (name: string, least: number, below: number) => {
      const found = record.slots(name, isNumber, (value) => value)
      return slots.map((slot) => {
        const value = found[slot] ?? 0
        if (Number.isSafeInteger(value) && value >= least && value < below) return value
        throw record.error(`${name}['${slot}']`, `expected an integer from ${least} to ${below - 1}, got ${value}`)
      })
    }
    return {
      ...record.place(),
      inputIds,
      userLength: roles.indexOf(1) < 0 ? inputIds.length : Math.min(roles.indexOf(1), inputIds.length),
      userAudio: record.audio('audio_inputs', userAudio),
      systemAudio: record.audio('audio_inputs', systemAudio),
      classIds: numbers('class_label_id', 0, classTypes.length),
      startPositions: numbers('start_pos', 0, 2 ** 31),
      endPositions: numbers('end_pos', 0, 2 ** 31),
      referIds: numbers('refer_id', 0, slots.length + 1),
      stateIds: numbers('diag_state', 0, classTypes.length),
      informed: numbers('inform_slot', 0, 2),
      informs: record.slots('inform', isString, named),
      values: record.slots('values', isString, named),
    }
  })
}

async function read(path: string, className: string, options: ReadDstPickleOptions): Promise<PickledRecord[]> {
  checkDstConfig(options.config)
  const { entry } = options
  const list = await readPickle<unknown>(path, { records: [className], ...defined({ entry }) })
  if (!Array.isArray(list)) {
    throw new DataError(`${path}: expected a list of ${className}, got ${shown(list)}`, { file: path })
  }
  return list.map((value, i) => new PickledRecord(path, i, value, options))
}

class PickledRecord {
  constructor(
    private readonly file: string,
    private readonly index: number,
    private readonly fields: unknown,
    private readonly options: ReadDstPickleOptions,
  ) {
    if (typeof fields !== 'object' || fields === null || Array.isArray(fields))
      throw this.error('record', `expected an object with fields, got ${shown(fields)}`)
  }

  error(where: string, what: string): DataError {
    const { file, index } = this
    return new DataError(`${file}: record ${index}: ${where}: ${what}`, { file, record: index, where })
  }

  value(name: string): unknown {
    const fields = this.fields as Record<string, unknown>
    if (!Object.hasOwn(fields, name)) throw this.error(name, 'expected this field, got none')
    return fields[name]
  }

  /** Return dialog and turn of a guid such as 'train-SNG0601-3', which starts with 'train' for all splits. */
  place(): { dialog: string; turn: number } {
    const guid = this.value('guid')
    const [, dialog, turn] = (typeof guid === 'string' && /^[^-]*-(.+)-(\d+)$/.exec(guid)) || []
    if (dialog === undefined) throw this.error('guid', `expected split-dialog-turn, got ${shown(guid)}`)
    return { dialog, turn: Number(turn) }
  }

  list<T>(name: string, test: (value: unknown) => value is T): T[]
  list(name: string, test: (value: unknown) => boolean): unknown[]
  list(name: string, test: (value: unknown) => boolean): unknown[] {
    const value = this.value(name)
    if (Array.isArray(value) && value.every(test)) return value
    throw this.error(name, `expected a list of valid items, got ${shown(value)}`)
  }

  audio(name: string, value: unknown): DstAudio | null {
    if (typeof value !== 'string') throw this.error(name, `expected the path of an audio file, got ${shown(value)}`)
    return this.options.audio === undefined ? null : { path: join(this.options.audio, value) }
  }

  /** Return the values of a dict by slot. Other slots are ignored, and all slots of the configuration are required. */
  slots<T, R>(
    name: string,
    test: (value: unknown) => value is T,
    make: (value: T) => R | undefined,
  ): Record<string, R> {
    const value = this.value(name)
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.error(name, `expected a dict, got ${shown(value)}`)
    }
    const entries: [string, R][] = []
    for (const slot of this.options.config.slots) {
      const item = (value as Record<string, unknown>)[slot]
      if (item === undefined) throw this.error(name, `expected the slot '${slot}', got none`)
      if (!test(item)) throw this.error(`${name}['${slot}']`, `expected another type, got ${shown(item)}`)
      const converted = make(item)
      if (converted !== undefined) entries.push([slot, converted])
    }
    return slotValues(entries)
  }
}

const isString = (value: unknown): value is string => typeof value === 'string'
const isNumber = (value: unknown): value is number => typeof value === 'number'
const isList = (value: unknown): value is unknown[] => Array.isArray(value)
const isClass = (value: unknown): value is DstClassType => (DST_CLASS_TYPES as readonly unknown[]).includes(value)
const named = (value: string): string | undefined => (value === 'none' ? undefined : value)
const positive = (value: number): number | undefined => (value > 0 ? value : undefined)

/** Return the range of words of a value. `labels` has one number per word, 1 for words of the value. */
function spanOf(labels: unknown[]): readonly [number, number] | undefined {
  const start = labels.indexOf(1)
  if (start < 0) return undefined
  const end = labels.indexOf(0, start)
  return [start, end < 0 ? labels.length : end]
}
