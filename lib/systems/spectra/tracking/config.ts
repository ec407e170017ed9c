import { readFile } from 'node:fs/promises'
import { requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'
import { parseJson } from '../../../files/json/json.js'

/** What a slot can do in a turn, in the order of SpokenWOZ's class numbers. */
export const DST_CLASS_TYPES = ['none', 'dontcare', 'copy_value', 'true', 'false', 'refer', 'inform'] as const

export type DstClassType = (typeof DST_CLASS_TYPES)[number]

/** SpokenWOZ's 36 slots, in the order of the published configuration, which is that of the refer classes. */
export const SPOKENWOZ_SLOTS: readonly string[] = [
  ...['hotel-pricerange', 'hotel-type', 'hotel-parking', 'hotel-book day', 'restaurant-name', 'restaurant-area'],
  ...['profile-email', 'profile-name', 'restaurant-food', 'restaurant-pricerange', 'restaurant-book people'],
  ...['restaurant-book time', 'restaurant-book day', 'hotel-internet', 'hotel-stars', 'taxi-arriveby'],
  ...['profile-phonenumber', 'taxi-leaveat', 'hotel-name', 'hotel-book stay', 'hotel-area', 'hotel-book people'],
  ...['taxi-destination', 'taxi-departure', 'profile-idnumber', 'train-destination', 'train-day', 'train-arriveby'],
  ...['train-departure', 'train-leaveat', 'train-book people', 'attraction-name', 'attraction-type'],
  ...['attraction-area', 'profile-platenumber', 'hospital-department'],
]

/** Slots of a dialog's state, what can happen to them, and which words mean the same value. */
export interface DstConfig {
  /** Of {@link DST_CLASS_TYPES}, in the order of the class numbers; `none` is the first. */
  classTypes: readonly DstClassType[]
  slots: readonly string[]
  /** Other ways to say a value: `{ centre: ['center', 'downtown'] }`. */
  labelMaps: Readonly<Record<string, readonly string[]>>
}

/** SpokenWOZ's slots and classes. `labelMaps` are those of its `config.json`; without them a value has one spelling. */
export const spokenWozConfig = (labelMaps: DstConfig['labelMaps'] = {}): DstConfig =>
  checkDstConfig({ classTypes: DST_CLASS_TYPES, slots: SPOKENWOZ_SLOTS, labelMaps })

/**
 * Reads a configuration in TripPy's form, `{ class_types, slots, label_maps }`, such as SpokenWOZ's `data/config.json`.
 * `class_types` may be left out (the seven of SpokenWOZ), and `label_maps` too.
 * @throws DataError for a file that is no JSON object; ConfigError for what it holds
 */
export async function readDstConfig(path: string): Promise<DstConfig> {
  requireString('readDstConfig', 'path', path)
  let bytes: Buffer
  try {
    bytes = await readFile(path)
  } catch (cause) {
    throw new DataError(`${path} cannot be read: ${(cause as Error).message}`, { file: path, cause })
  }
  const value = (await parseJson([bytes], path)) as Record<string, unknown> | null
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new DataError(`${path}: a tracking configuration is an object with slots, class_types and label_maps`, {
      file: path,
    })
  }
  const known = ['class_types', 'slots', 'label_maps']
  for (const key of Object.keys(value)) {
    if (known.includes(key)) continue
    const near = nearest(key, known)
    throw new ConfigError(`${path}: unknown key '${key}'${near ? `, did you mean '${near}'?` : ''}`, {
      file: path,
      key,
    })
  }
  return checkDstConfig({
    classTypes: (value.class_types ?? DST_CLASS_TYPES) as DstClassType[],
    slots: value.slots as string[],
    labelMaps: (value.label_maps ?? {}) as Record<string, string[]>,
  })
}

/** @throws ConfigError that names the first thing that is wrong */
export function checkDstConfig(config: DstConfig): DstConfig {
  const fail = (what: string, fields: object = {}) => new ConfigError(`DstConfig: ${what}`, { ...fields })
  if (typeof config !== 'object' || config === null) throw fail('it must be an object')
  const { classTypes, slots, labelMaps } = config
  if (!isStrings(slots) || slots.length === 0) throw fail('slots must be an array of names')
  if (!isStrings(classTypes)) throw fail('class_types must be an array of names')
  for (const [name, list] of Object.entries<readonly string[]>({ slots, class_types: classTypes })) {
    const twice = list.find((item, i) => list.indexOf(item) !== i)
    if (twice !== undefined) throw fail(`'${twice}' stands twice in ${name}`, { key: name })
  }
  for (const slot of slots) {
    // A dot would make two modules of one name in the state dictionary.
    if (slot === '' || slot === 'none' || slot.includes('.') || slot === '__proto__')
      throw fail(`'${slot}' cannot be a slot's name`, { slot })
  }
  for (const type of classTypes) {
    if ((DST_CLASS_TYPES as readonly string[]).includes(type)) continue
    const near = nearest(type, DST_CLASS_TYPES)
    throw fail(`unknown class type '${type}'${near ? `, did you mean '${near}'?` : ''}`, { classType: type })
  }
  if (classTypes[0] !== 'none') throw fail(`the first of class_types must be 'none', not '${classTypes[0]}'`)
  if (!classTypes.includes('copy_value')) throw fail("class_types must have 'copy_value'")
  if (typeof labelMaps !== 'object' || labelMaps === null || Array.isArray(labelMaps))
    throw fail('label_maps must be an object')
  for (const [value, variants] of Object.entries(labelMaps)) {
    if (!isStrings(variants)) throw fail(`label_maps['${value}'] must be an array of strings`, { value })
  }
  return config
}

const known = new WeakSet<DstConfig>()

/** {@link checkDstConfig}, once for each: for what is called with the same one again and again. */
export function knownDstConfig(config: DstConfig): DstConfig {
  if (typeof config === 'object' && config !== null && known.has(config)) return config
  checkDstConfig(config)
  known.add(config)
  return config
}

/** Other ways to say `value`; undefined where the maps do not have it. */
export const variantsOf = ({ labelMaps }: DstConfig, value: string): readonly string[] | undefined =>
  Object.hasOwn(labelMaps, value) ? labelMaps[value] : undefined

const isStrings = (value: unknown): value is readonly string[] =>
  Array.isArray(value) && value.every((item) => typeof item === 'string')
